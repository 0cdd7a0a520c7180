"""Run an OpenVINO engine, several requests in one batch.

The only module here that needs openvino, which it imports when an engine is loaded. It is in this package so that
the server and `verify` compile an engine with the same settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from gdino_core.errors import ConfigError, ServerError

ENGINE_FILE_NAME: Final = "model.xml"  # beside model.py; its weights are in model.bin
INFERENCE_PRECISIONS: Final = ("f32", "bf16", "f16")
_THREADS = "openvino_threads"
_INFERENCE_PRECISION = "openvino_inference_precision"

NamedArrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class OpenVinoSettings:
    """How an engine is compiled for this machine.

    Attributes:
        threads: of one inference; 0 leaves the choice to OpenVINO.
        inference_precision: what FP32 operators compute in. OpenVINO's own choice is bf16 on processors that have
            it, without a word, so it is always said.

    Raises:
        ConfigError: a value is out of range.
    """

    threads: int = 0
    inference_precision: str = "f32"

    def __post_init__(self) -> None:
        """Check every value."""
        if self.threads < 0:
            raise ConfigError(f"{_THREADS} is {self.threads}", fix="give 0 (OpenVINO chooses) or more")
        if self.inference_precision not in INFERENCE_PRECISIONS:
            raise ConfigError(
                f"{_INFERENCE_PRECISION} is {self.inference_precision!r}",
                fix=f"choose one of {', '.join(INFERENCE_PRECISIONS)}",
            )

    def to_parameters(self) -> dict[str, str]:
        """Return the settings as names and strings, for the `parameters` of config.pbtxt."""
        return {_THREADS: str(self.threads), _INFERENCE_PRECISION: self.inference_precision}

    def to_properties(self) -> dict[str, str | int]:
        """Return the settings as OpenVINO's compile_model takes them."""
        properties: dict[str, str | int] = {
            "INFERENCE_PRECISION_HINT": self.inference_precision,
            "PERFORMANCE_HINT": "LATENCY",
        }
        return properties | ({"INFERENCE_NUM_THREADS": self.threads} if self.threads else {})

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Self:
        """Read the settings back from the `parameters` of config.pbtxt.

        Raises:
            ConfigError: a parameter is missing or has a value that is refused.
        """
        try:
            threads, precision = int(parameters[_THREADS]), parameters[_INFERENCE_PRECISION]
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"config.pbtxt lacks {_THREADS} (a number) or {_INFERENCE_PRECISION}: {error}",
                fix="assemble the repository again",
            ) from error
        return cls(threads=threads, inference_precision=precision)


class OpenVinoEngine:
    """A compiled engine; one call at a time."""

    def __init__(self, path: Path, settings: OpenVinoSettings) -> None:
        """Read and compile an engine for this machine's CPU.

        Args:
            path: an OpenVINO .xml with its .bin beside it, or an ONNX file.
            settings: how to compile it.

        Raises:
            ServerError: OpenVINO is not installed, there is no such file, or it cannot be compiled.
        """
        try:
            import openvino
        except ImportError as error:
            raise ServerError(
                "openvino is not installed where the server looks for packages",
                fix="install the server extra: pip install '.[server]' in a checkout",
            ) from error
        if not path.is_file():
            raise ServerError(f"there is no engine {path}", fix="build the engine, and assemble")
        try:
            core = openvino.Core()
            model = core.read_model(path)
            # Compiling may give a tensor further names (of a cast that it removed): names are taken before, and
            # tensors go in and come out by their order, which stays.
            self.input_names = tuple(port.any_name for port in model.inputs)
            self.output_names = tuple(port.any_name for port in model.outputs)
            self._compiled = core.compile_model(model, "CPU", settings.to_properties())
        except RuntimeError as error:
            # The last line is the reason, those before it are places in OpenVINO's source.
            reason = str(error).strip().rpartition("\n")[2]
            raise ServerError(
                f"OpenVINO cannot load {path}: {reason}", fix="build the engine again, and assemble"
            ) from error

    def infer(self, inputs: NamedArrays) -> dict[str, npt.NDArray[Any]]:
        """Run one batch.

        Args:
            inputs: arrays by the names in `input_names`, all with the same batch axis first.

        Returns:
            Arrays of their own memory by the names in `output_names`.
        """
        results = self._compiled([inputs[name] for name in self.input_names])
        return {name: results[index] for index, name in enumerate(self.output_names)}

    def infer_together(self, requests: Sequence[NamedArrays]) -> list[dict[str, npt.NDArray[Any]]]:
        """Run several requests as one batch.

        Args:
            requests: inputs of each, with the same shapes but for the batch axis.

        Returns:
            The outputs of each, in the same order.
        """
        if len(requests) == 1:
            return [self.infer(requests[0])]
        batch = {name: np.concatenate([request[name] for request in requests]) for name in self.input_names}
        sizes = [len(request[self.input_names[0]]) for request in requests]
        ends = np.cumsum(sizes)[:-1]
        parts = {name: np.split(array, ends) for name, array in self.infer(batch).items()}
        return [{name: parts[name][index] for name in parts} for index in range(len(requests))]
