"""Read which versions work together."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gdino_build.doctor.facts import Gpu, Version

_TABLE = Path(__file__).with_name("compatibility.toml")


@dataclass(frozen=True, kw_only=True)
class TritonImage:
    """A release of NVIDIA's image; tensorrt is None where its source does not say."""

    release: Version
    cuda: Version
    tensorrt: Version | None
    min_driver: Version
    datacenter_drivers: Sequence[int]
    source: str

    def runs_on(self, driver: Version, gpus: Sequence[Gpu], datacenter_names: Sequence[str]) -> bool:
        """Whether a driver is new enough; a data centre's GPU may have an older branch of it."""
        if driver >= self.min_driver:
            return True
        are_datacenter = all(gpu.name.startswith(tuple(datacenter_names)) for gpu in gpus)
        return bool(gpus) and are_datacenter and driver[0] in self.datacenter_drivers


@dataclass(frozen=True, kw_only=True)
class Blackwell:
    """What GPUs of this generation need."""

    min_capability: int
    min_driver: Version
    min_tensorrt: Version


@dataclass(frozen=True, kw_only=True)
class Compatibility:
    """compatibility.toml; see there for what each number means and where it is from."""

    python: Version
    min_driver_by_cuda: dict[int, Version]
    blackwell: Blackwell
    min_tensorrt: Version
    min_capability: int
    images: Sequence[TritonImage]
    datacenter_names: Sequence[str]
    min_shared_memory_mib: int
    min_disk_gib: int
    min_memory_gib: int


def load_compatibility(path: Path = _TABLE) -> Compatibility:
    """Read the table."""
    table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    blackwell, machine = table["blackwell"], table["machine"]
    return Compatibility(
        python=tuple(table["python"]["embedded_server"]),
        min_driver_by_cuda={entry["major"]: tuple(entry["min_driver"]) for entry in table["cuda"]},
        blackwell=Blackwell(
            min_capability=blackwell["min_capability"],
            min_driver=tuple(blackwell["min_driver"]),
            min_tensorrt=tuple(blackwell["min_tensorrt"]),
        ),
        min_tensorrt=tuple(table["tensorrt"]["min_version"]),
        min_capability=table["tensorrt"]["min_capability"],
        images=[
            TritonImage(
                release=tuple(entry["release"]),
                cuda=tuple(entry["cuda"]),
                tensorrt=tuple(entry["tensorrt"]) if "tensorrt" in entry else None,
                min_driver=tuple(entry["min_driver"]),
                datacenter_drivers=entry["datacenter_drivers"],
                source=entry["source"],
            )
            for entry in table["triton_image"]
        ],
        datacenter_names=table["datacenter"]["names"],
        min_shared_memory_mib=machine["min_shared_memory_mib"],
        min_disk_gib=machine["min_disk_gib"],
        min_memory_gib=machine["min_memory_gib"],
    )
