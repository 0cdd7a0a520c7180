"""Write what TensorRT says while it compiles into a file, and keep its errors."""

from typing import Any, TextIO

from gdino_build.tensorrt.flavour import Flavour

# TensorRT-RTX asks for a GPU in passing, and says so as an error although it needs none.
_NO_GPU = ("CUDA driver version is insufficient", "no CUDA-capable device", "cudaError 35", "cudaError 100")


def open_build_log(flavour: Flavour, file: TextIO) -> Any:
    """A logger for the builder, with `errors`: what went wrong, in order.

    Args:
        flavour: that compiles.
        file: gets a line for each message but the verbose ones, once.
    """
    severity: Any = flavour.module.ILogger

    class BuildLog(severity):  # type: ignore[misc]  # its base is known only now
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            self._seen: set[str] = set()

        def log(self, level: Any, message: str) -> None:
            """Called by TensorRT."""
            if level > severity.INFO or message in self._seen or file.closed:
                return
            self._seen.add(message)
            if level <= severity.ERROR and not any(text in message for text in _NO_GPU):
                self.errors.append(message)
            file.write(f"{level.name}: {message}\n")

    return BuildLog()
