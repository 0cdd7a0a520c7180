"""Turn what tools print into facts."""

import json
import re
from collections.abc import Mapping, Sequence

from gdino_build.doctor.facts import Driver, Gpu, Plan, Torch, Version, parse_version

GPU_QUERY = "name,compute_cap,memory.total,driver_version"
_CUDA_IN_HEADER = re.compile(r"CUDA Version:\s*([0-9.]+)")
_NVCC_RELEASE = re.compile(r"release ([0-9.]+)")
_LIBRARY = re.compile(r"^\s*(lib[A-Za-z_]+)\.so\.([0-9.]+)\s.*=>", re.MULTILINE)
_LIBRARIES = ("libnvinfer", "libcudart")


def parse_gpus(csv: str) -> tuple[list[Gpu], Version | None]:
    """GPUs and the driver's version from `nvidia-smi --query-gpu=GPU_QUERY --format=csv,noheader,nounits`."""
    gpus, driver = [], None
    for line in csv.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 4 or not re.fullmatch(r"\d+\.\d", fields[1]):
            continue
        name, capability, memory, version = fields
        memory_mib = int(memory) if memory.isdigit() else 0  # "[N/A]" where it is shared with the machine
        gpus.append(Gpu(name=name, capability=int(capability.replace(".", "")), memory_mib=memory_mib))
        driver = parse_version(version)
    return gpus, driver


def parse_driver(header: str, exit_code: int, version: Version | None) -> Driver:
    """The driver, from what `nvidia-smi` alone prints.

    Args:
        header: its output and its errors.
        exit_code: its exit code.
        version: from `parse_gpus`.
    """
    if exit_code:
        return Driver(failure=" ".join(header.split()) or f"exit code {exit_code}")
    found = _CUDA_IN_HEADER.search(header)
    return Driver(version=version, cuda=parse_version(found[1]) if found else None)


def parse_nvcc(text: str) -> Version | None:
    """The toolkit's version from `nvcc --version`."""
    found = _NVCC_RELEASE.search(text)
    return parse_version(found[1]) if found else None


def parse_libraries(ldconfig: str) -> dict[str, Version]:
    """Versions of TensorRT's and CUDA's libraries from `ldconfig -p`; of several the newest."""
    found: dict[str, Version] = {}
    for name, version in _LIBRARY.findall(ldconfig):
        if name in _LIBRARIES:
            found[name] = max(found.get(name, ()), parse_version(version))
    return found


def parse_torch(probe: str) -> Torch | None:
    """The torch build, from what `collect.TORCH_PROBE` prints."""
    try:
        found = json.loads(probe)
    except ValueError:
        return None
    cuda = found["cuda"]
    capabilities = [int(name.removeprefix("sm_").rstrip("a")) for name in found["archs"] if name.startswith("sm_")]
    return Torch(version=found["version"], cuda=parse_version(cuda) if cuda else None, capabilities=capabilities)


def parse_plan(path: str, manifest: str) -> Plan | None:
    """A plan by its manifest; None where it is damaged, which `make engines` mends."""
    try:
        found = json.loads(manifest)
        return Plan(
            path=path,
            flavour=found["flavour"],
            version=found["version"],
            capability=found["capability"],
            rebuild_command=found["rebuild_command"],
        )
    except (ValueError, KeyError, TypeError):
        return None


def parse_triton_image(environment: Mapping[str, str]) -> Version | None:
    """Release of NVIDIA's Triton image, which its environment tells."""
    return parse_version(environment.get("NVIDIA_TRITON_SERVER_VERSION", "")) or None


def parse_docker_runtimes(text: str) -> Sequence[str] | None:
    """Runtimes of a Docker engine, from `docker info --format '{{json .Runtimes}}'`."""
    try:
        return sorted(json.loads(text))
    except (ValueError, TypeError):
        return None
