"""What is known of a machine; what could not be found out is None."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Version = tuple[int, ...]


def parse_version(text: str) -> Version:
    """The numbers at the start of a version: "10.7.0.23" is (10, 7, 0, 23), "2.13.0+cpu" is (2, 13, 0)."""
    numbers = []
    for part in text.split("+")[0].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:  # "0rc1"
            break
    return tuple(numbers)


def format_version(version: Version) -> str:
    """(10, 7) is "10.7"."""
    return ".".join(map(str, version))


def format_capability(capability: int) -> str:
    """89 is "8.9"."""
    return f"{capability // 10}.{capability % 10}"


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """An NVIDIA GPU, as nvidia-smi tells it; capability 89 is 8.9."""

    name: str
    capability: int
    memory_mib: int


@dataclass(frozen=True, kw_only=True)
class Driver:
    """NVIDIA's driver.

    Attributes:
        version: such as (570, 86, 10); None where nvidia-smi fails or is not there.
        cuda: newest CUDA that it runs, such as (12, 8).
        failure: what nvidia-smi said instead; "" where there is none.
    """

    version: Version | None = None
    cuda: Version | None = None
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class Torch:
    """The torch of the environment: its CUDA, None for a CPU build, and the capabilities that it has kernels for."""

    version: str
    cuda: Version | None
    capabilities: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A TensorRT plan that was built before, by its manifest."""

    path: str
    flavour: str
    version: str
    capability: int
    rebuild_command: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A machine.

    Attributes:
        python: version of the Python that builds and serves.
        platform: such as "Linux x86_64".
        glibc: version.
        in_container: whether this runs in a container.
        triton_image: release of NVIDIA's Triton image that this runs in, such as (24, 12).
        docker_runtimes: of the Docker engine; None where there is no engine that answers.
        has_nvidia_card: whether one is on the PCI bus.
        driver: NVIDIA's.
        gpus: that nvidia-smi lists.
        cuda_toolkit: from nvcc.
        packages: of the project's environment, with their versions.
        torch: None where it is not installed.
        libraries: shared libraries that the loader finds, by what they are: "libnvinfer" -> (10, 7, 0).
        plans: that are in out/.
        cpu_flags: of the processor.
        memory_bytes: of the machine or container.
        disk_free_bytes: where the project is.
        shared_memory_bytes: size of /dev/shm.
        taken_ports: variable, port and holder of each that the server wants and somebody has.
    """

    python: Version
    platform: str
    glibc: Version | None = None
    in_container: bool = False
    triton_image: Version | None = None
    docker_runtimes: Sequence[str] | None = None
    has_nvidia_card: bool = False
    driver: Driver = Driver()
    gpus: Sequence[Gpu] = ()
    cuda_toolkit: Version | None = None
    packages: Mapping[str, str] = field(default_factory=dict[str, Any])
    torch: Torch | None = None
    libraries: Mapping[str, Version] = field(default_factory=dict[str, Any])
    plans: Sequence[Plan] = ()
    cpu_flags: Sequence[str] = ()
    memory_bytes: int | None = None
    disk_free_bytes: int | None = None
    shared_memory_bytes: int | None = None
    taken_ports: Sequence[tuple[str, int, str]] = ()
