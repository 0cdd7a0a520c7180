"""Facts and findings as text."""

from collections.abc import Iterator, Sequence

from gdino_build.doctor.diagnosis import BLOCKS, Finding
from gdino_build.doctor.facts import Facts, format_capability, format_version

_PACKAGES = ("torch", "openvino", "onnxruntime", "tensorrt", "tensorrt-rtx", "tritonserver", "numpy")
_GIB = 1 << 30


def format_report(facts: Facts, findings: Sequence[Finding]) -> str:
    """What was seen, what is wrong, and what that means."""
    lines = [f"{name:<14} {value}" for name, value in _seen(facts)]
    for finding in findings:
        lines += ["", f"{finding.weight.upper()}: {finding.what}", f"  why: {finding.why}", f"  fix: {finding.fix}"]
    blocked = any(finding.weight == BLOCKS for finding in findings)
    verdict = "this machine cannot serve as it is" if blocked else "this machine can serve CPU profiles"
    if facts.gpus and not findings:
        verdict = "this machine can serve CPU and GPU profiles"
    return "\n".join([*lines, "", verdict])


def _seen(facts: Facts) -> Iterator[tuple[str, str]]:
    yield "system", f"{facts.platform}, Python {format_version(facts.python)}, glibc {_version(facts.glibc)}"
    if facts.in_container or facts.triton_image:
        image = f", Triton image {_version(facts.triton_image)}" if facts.triton_image else ""
        yield "container", f"yes{image}"
    for gpu in facts.gpus:
        yield "GPU", f"{gpu.name}, compute capability {format_capability(gpu.capability)}, {gpu.memory_mib} MiB"
    if not facts.gpus:
        yield "GPU", "none" if not facts.has_nvidia_card else "a card that cannot be used"
    if facts.driver.version:
        yield "driver", f"{format_version(facts.driver.version)}, CUDA up to {_version(facts.driver.cuda)}"
    if facts.cuda_toolkit:
        yield "CUDA toolkit", format_version(facts.cuda_toolkit)
    for name in _PACKAGES:
        if name in facts.packages:
            yield name, facts.packages[name] + _torch_build(facts, name)
    if not facts.packages:
        yield "packages", "none yet: make setup installs them"
    yield "memory", _gib(facts.memory_bytes)
    yield "/dev/shm", _gib(facts.shared_memory_bytes)
    yield "disk, free", _gib(facts.disk_free_bytes)


def _torch_build(facts: Facts, name: str) -> str:
    if name != "torch" or facts.torch is None:
        return ""
    return f", CUDA {format_version(facts.torch.cuda)}" if facts.torch.cuda else ", without CUDA"


def _version(version: tuple[int, ...] | None) -> str:
    return format_version(version) if version else "unknown"


def _gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / _GIB:.1f} GiB"
