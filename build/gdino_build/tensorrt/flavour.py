"""Find the TensorRT that is installed: the full one where it is there, otherwise TensorRT-RTX."""

import importlib
from dataclasses import dataclass
from typing import Any

from gdino_core.errors import ConfigError, ExportError

FULL = "tensorrt"  # what Triton's backend loads; it compiles on the GPU that the plan is for
RTX = "tensorrt-rtx"  # compiles ahead of time, with no GPU at hand
RTX_REQUIREMENT = "tensorrt-rtx==1.7.1.116"
FLAVOURS = (FULL, RTX)
_MODULES = {FULL: ("tensorrt",), RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings")}
_OLDEST_FULL = 10  # the first with strongly typed networks and the IProgressMonitor of this project


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """An installed TensorRT.

    Attributes:
        name: FULL or RTX.
        version: such as "1.7.1.116"; a plan is for exactly one.
        module: of its Python API, which is the same for both.
    """

    name: str
    version: str
    module: Any

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def compiled_ahead_of_time(self) -> tuple[int, ...]:
        """Compute capabilities that it compiles for without such a GPU, such as 89; none for the full one."""
        if self.name == FULL:
            return ()
        names = self.module.ComputeCapability.__members__
        return tuple(sorted(int(name.removeprefix("SM")) for name in names if name.startswith("SM")))

    def network_flags(self) -> int:
        """Flags of a strongly typed network: 10.x must be asked for it, later ones and RTX know no other."""
        if self.name == FULL and _major(self.version) == _OLDEST_FULL:
            return 1 << int(self.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return 0


def find_flavour(wanted: str | None = None) -> Flavour:
    """Import the TensorRT to compile with.

    Args:
        wanted: one of FLAVOURS; None takes the full one if both are there.

    Raises:
        ConfigError: there is no such flavour.
        ExportError: it is not installed, or too old.
    """
    if wanted not in (None, *FLAVOURS):
        raise ConfigError(f"there is no TensorRT flavour {wanted!r}", fix=f"choose one of {', '.join(FLAVOURS)}")
    reasons = []
    for name in FLAVOURS if wanted is None else (wanted,):
        for module_name in _MODULES[name]:
            try:
                module = importlib.import_module(module_name)
            except ImportError as error:  # not installed, or a library of it is missing
                reasons.append(f"{module_name}: {error}")
                continue
            if not hasattr(module, "Builder"):  # `tensorrt` on PyPI is an empty stand-in for NVIDIA's own index
                reasons.append(f"{module_name}: has no Builder")
                continue
            return _checked(Flavour(name=name, version=module.__version__, module=module))
    raise ExportError(
        f"{wanted or 'TensorRT'} is not installed ({'; '.join(reasons)})",
        fix=f"pip install {RTX_REQUIREMENT}, or for Triton build in an image that has tensorrt 10 or newer",
    )


def _checked(flavour: Flavour) -> Flavour:
    if flavour.name == FULL and _major(flavour.version) < _OLDEST_FULL:
        raise ExportError(
            f"tensorrt {flavour.version} is too old: it cannot compile strongly typed networks as this project does",
            fix=f"install tensorrt {_OLDEST_FULL} or newer",
        )
    return flavour


def _major(version: str) -> int:
    return int(version.split(".")[0])
