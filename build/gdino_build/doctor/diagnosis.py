"""What of a machine cannot work together, why, and what mends it: one function a situation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gdino_build.doctor.compatibility import Compatibility
from gdino_build.doctor.facts import Facts, Version, format_capability, format_version, parse_version

BLOCKS: Final = "blocks"  # serving on this machine cannot work
LIMITS: Final = "limits"  # a part cannot, such as the GPU or an old plan; the rest can
_FIRST_NUMPY_THAT_FAILS = 2
_RTX = "tensorrt-rtx"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is wrong, why, and the command or image that mends it."""

    weight: str
    what: str
    why: str
    fix: str


Rule = Callable[[Facts, Compatibility], Iterator[Finding]]


def diagnose(facts: Facts, table: Compatibility) -> list[Finding]:
    """Everything that is wrong, what blocks first."""
    found = [finding for rule in RULES for finding in rule(facts, table)]
    return sorted(found, key=lambda finding: finding.weight != BLOCKS)


def python_version(facts: Facts, table: Compatibility) -> Iterator[Finding]:
    """The embedded server runs its models in one Python only."""
    if facts.python[:2] != table.python and facts.triton_image is None:
        wanted = format_version(table.python)
        yield Finding(
            weight=BLOCKS,
            what=f"this is Python {format_version(facts.python)}",
            why=f"the embedded tritonserver runs its models in Python {wanted}",
            fix=f"install Python {wanted} (Debian, Ubuntu: apt install python{wanted} python{wanted}-venv), "
            f"or make setup PYTHON=/path/to/python{wanted}",
        )


def platform(facts: Facts, _: Compatibility) -> Iterator[Finding]:
    """The embedded server is built for one platform."""
    if facts.platform != "Linux x86_64":
        yield Finding(
            weight=BLOCKS,
            what=f"this is {facts.platform}",
            why="the embedded tritonserver and TensorRT-RTX are built for Linux x86_64",
            fix="use the image, docker/README.md, or another machine",
        )


def numpy_of_the_server(facts: Facts, _: Compatibility) -> Iterator[Finding]:
    """The embedded server's Python backend misreads numpy 2."""
    version = facts.packages.get("numpy", "")
    if "tritonserver" in facts.packages and version and parse_version(version) >= (_FIRST_NUMPY_THAT_FAILS,):
        yield Finding(
            weight=BLOCKS,
            what=f"numpy {version} is in the server's environment",
            why="the embedded server's Python backend misreads arrays of numpy 2",
            fix="make setup, which pins numpy 1.26.4",
        )


def driver_missing(facts: Facts, _: Compatibility) -> Iterator[Finding]:
    """A card without a driver that answers."""
    failure = facts.driver.failure
    if not facts.has_nvidia_card or not failure:
        return
    if facts.in_container:
        why, fix = "the container was started without it", "docker run --gpus all (needs NVIDIA's Container Toolkit)"
    elif "version mismatch" in failure:
        why, fix = "the driver was updated, and the kernel still runs the old module", "reboot"
    elif "no nvidia-smi" in failure:
        why, fix = "no driver is installed", "install NVIDIA's driver (Ubuntu: ubuntu-drivers install), and reboot"
    else:
        why = "the kernel module is not loaded, often since a kernel update or Secure Boot"
        fix = "modprobe nvidia, and see dmesg; else install the driver again"
    yield Finding(weight=LIMITS, what=f"there is an NVIDIA card that cannot be used: {failure[:160]}", why=why, fix=fix)


def driver_too_old(facts: Facts, table: Compatibility) -> Iterator[Finding]:
    """Programs built with a newer CUDA than the driver runs: "CUDA driver version is insufficient"."""
    driver = facts.driver.version
    if driver is None:
        return
    built = {"torch": facts.torch.cuda if facts.torch else None, "the CUDA toolkit": facts.cuda_toolkit}
    built["libcudart"] = facts.libraries.get("libcudart")
    for name, cuda in built.items():
        needed = table.min_driver_by_cuda.get(cuda[0]) if cuda else None
        if cuda and needed and driver < needed:
            yield Finding(
                weight=LIMITS,
                what=f"the driver {format_version(driver)} is too old for {name} of CUDA {format_version(cuda)}",
                why=f"CUDA {cuda[0]} needs driver {format_version(needed)} or newer: "
                "'CUDA driver version is insufficient for CUDA runtime version'",
                fix=f"update the driver to {format_version(needed)} or newer, or install a build for "
                f"CUDA {_newest_cuda(driver, table)}",
            )


def image_for_the_driver(facts: Facts, table: Compatibility) -> Iterator[Finding]:
    """NVIDIA's Triton image needs a driver, on the machine that it runs on."""
    driver = facts.driver.version
    if driver is None:
        return
    running = [one for one in table.images if one.release == facts.triton_image]
    can = [one for one in table.images if one.runs_on(driver, facts.gpus, table.datacenter_names)]
    for image in running or table.images[:1]:
        if image in can:
            continue
        newest = "an image of a CUDA that it runs" if not can else f"tritonserver:{_tag(can[-1].release)}-py3"
        yield Finding(
            weight=LIMITS,
            what=f"the driver {format_version(driver)} is too old for tritonserver:{_tag(image.release)}-py3",
            why=f"the image has CUDA {format_version(image.cuda)}, which needs driver "
            f"{format_version(image.min_driver)} or newer ({image.source})",
            fix=f"update the driver, or use {newest}",
        )


def gpu_too_old(facts: Facts, table: Compatibility) -> Iterator[Finding]:
    """TensorRT has no kernels for old GPUs."""
    for gpu in facts.gpus:
        if gpu.capability < table.min_capability:
            yield Finding(
                weight=LIMITS,
                what=f"{gpu.name} has compute capability {format_capability(gpu.capability)}",
                why=f"TensorRT needs {format_capability(table.min_capability)} or newer since version 10.5",
                fix="serve a CPU profile here (make serve PROFILE=swint-cpu), or on a newer GPU",
            )


def no_kernels_in_torch(facts: Facts, _: Compatibility) -> Iterator[Finding]:
    """A torch without kernels for the GPU: "no kernel image is available", "invalid device function"."""
    torch = facts.torch
    if torch is None or torch.cuda is None or not torch.capabilities:
        return
    for gpu in facts.gpus:
        same_major = [one for one in torch.capabilities if one // 10 == gpu.capability // 10 and one <= gpu.capability]
        if not same_major:
            yield Finding(
                weight=LIMITS,
                what=f"torch {torch.version} has no kernels for {gpu.name} ({format_capability(gpu.capability)})",
                why="it was built for " + ", ".join(map(format_capability, torch.capabilities)) + ": 'invalid device "
                "function' or 'no kernel image is available for execution on the device'",
                fix=f"install a torch whose CUDA knows it: pip install torch --index-url "
                f"https://download.pytorch.org/whl/{'cu128' if gpu.capability >= 75 else 'cu126'}",
            )


def torch_without_cuda(facts: Facts, _: Compatibility) -> Iterator[Finding]:
    """Only the GPU check needs torch's CUDA; export and serving do not."""
    if facts.gpus and facts.torch and facts.torch.cuda is None:
        yield Finding(
            weight=LIMITS,
            what=f"torch {facts.torch.version} is a CPU build, and there is a GPU",
            why="make gpu-check cannot time PyTorch on it; building and serving do not need it",
            fix="pip install --force-reinstall torch from PyTorch's CUDA index",
        )


def newest_gpus(facts: Facts, table: Compatibility) -> Iterator[Finding]:
    """Blackwell runs with new versions of everything only."""
    needs = table.blackwell
    tensorrt = _tensorrt(facts)
    for gpu in facts.gpus:
        if gpu.capability < needs.min_capability:
            continue
        if tensorrt and tensorrt < needs.min_tensorrt:
            yield Finding(
                weight=LIMITS,
                what=f"TensorRT {format_version(tensorrt)} does not know {gpu.name} "
                f"({format_capability(gpu.capability)})",
                why=f"Blackwell needs TensorRT {format_version(needs.min_tensorrt)} or newer",
                fix="use an image of 25.03 or newer, or install a newer TensorRT",
            )
        if facts.driver.version and facts.driver.version < needs.min_driver:
            yield Finding(
                weight=LIMITS,
                what=f"the driver {format_version(facts.driver.version)} does not know {gpu.name}",
                why=f"Blackwell needs driver {format_version(needs.min_driver)} or newer",
                fix="update the driver",
            )


def tensorrt_of_the_server(facts: Facts, table: Compatibility) -> Iterator[Finding]:
    """With a GPU, Triton wants full TensorRT's plans."""
    tensorrt = _tensorrt(facts)
    if tensorrt and tensorrt < table.min_tensorrt:
        yield Finding(
            weight=LIMITS,
            what=f"TensorRT {format_version(tensorrt)} is installed",
            why=f"make engines needs {format_version(table.min_tensorrt)} or newer: networks are strongly typed",
            fix="build in the image that serves, see docker/README.md",
        )
    elif facts.gpus and tensorrt is None:
        has_rtx = any(name.startswith(_RTX) for name in facts.packages)
        yield Finding(
            weight=LIMITS,
            what="there is a GPU, and no full TensorRT" + (", only TensorRT-RTX" if has_rtx else ""),
            why="Triton's TensorRT backend loads plans of full TensorRT only",
            fix="build and serve in NVIDIA's image, see docker/README.md; CPU profiles work as they are",
        )


def stale_plans(facts: Facts, table: Compatibility) -> Iterator[Finding]:
    """A plan runs with the TensorRT that built it, on the compute capability that it was built for."""
    tensorrt = _tensorrt(facts) or _tensorrt_of_image(facts, table)
    for plan in facts.plans:
        if plan.flavour != _RTX and tensorrt and parse_version(plan.version)[: len(tensorrt)] != tensorrt:
            yield Finding(
                weight=LIMITS,
                what=f"{plan.path} was built by {plan.flavour} {plan.version}",
                why=f"here is TensorRT {format_version(tensorrt)}, and a plan loads in the version that built it only",
                fix=f"build it here: {plan.rebuild_command}",
            )
        if facts.gpus and plan.capability not in {gpu.capability for gpu in facts.gpus}:
            yield Finding(
                weight=LIMITS,
                what=f"{plan.path} is for compute capability {format_capability(plan.capability)}",
                why="the GPU here has " + ", ".join(sorted({format_capability(gpu.capability) for gpu in facts.gpus})),
                fix=f"make engines again here, SM={facts.gpus[0].capability}; before: {plan.rebuild_command}",
            )


def container_toolkit(facts: Facts, _: Compatibility) -> Iterator[Finding]:
    """Docker gives no GPU to a container without NVIDIA's runtime."""
    if facts.gpus and facts.docker_runtimes is not None and "nvidia" not in facts.docker_runtimes:
        yield Finding(
            weight=LIMITS,
            what=f"Docker has the runtimes {', '.join(facts.docker_runtimes)}",
            why="without NVIDIA's it hands no GPU to a container: 'could not select device driver'",
            fix="install nvidia-container-toolkit, then: nvidia-ctk runtime configure --runtime=docker, and restart it",
        )


def shared_memory(facts: Facts, table: Compatibility) -> Iterator[Finding]:
    """Server and models exchange tensors through /dev/shm, and Docker gives 64 MiB."""
    size = facts.shared_memory_bytes
    if size is not None and size < table.min_shared_memory_mib << 20:
        yield Finding(
            weight=BLOCKS,
            what=f"/dev/shm has {size >> 20} MiB",
            why="server and models exchange pictures through it: 'Failed to increase the shared memory pool size'",
            fix="docker run --shm-size=1g; in Kubernetes an emptyDir with medium: Memory at /dev/shm",
        )


def memory(facts: Facts, table: Compatibility) -> Iterator[Finding]:
    """Too little memory to build or serve."""
    if facts.memory_bytes is not None and facts.memory_bytes < table.min_memory_gib << 30:
        yield Finding(
            weight=LIMITS,
            what=f"there are {facts.memory_bytes / 2**30:.1f} GiB of memory",
            why=f"a full-size build takes up to 3 GiB, its server more: make plan-memory measures it. "
            f"{table.min_memory_gib} GiB is the least",
            fix="use the demo profile, or a machine or container with more memory",
        )


def disk(facts: Facts, table: Compatibility) -> Iterator[Finding]:
    """Too little disk for the environment and a build."""
    if facts.disk_free_bytes is not None and facts.disk_free_bytes < table.min_disk_gib << 30:
        yield Finding(
            weight=LIMITS,
            what=f"{facts.disk_free_bytes / 2**30:.1f} GiB of disk are free",
            why=f"environment and a full-size build take up to {table.min_disk_gib} GiB",
            fix="free some, or put the checkout elsewhere",
        )


def ports(facts: Facts, _: Compatibility) -> Iterator[Finding]:
    """Somebody has the server's ports."""
    for variable, port, holder in facts.taken_ports:
        other = port + 1000 if port < 64000 else port - 1000
        yield Finding(
            weight=LIMITS,
            what=f"port {port} is taken by {holder}",
            why="the server would listen there; one that you started before is fine",
            fix=f"stop it, or choose another: {variable}={other}",
        )


def slow_processor(facts: Facts, _: Compatibility) -> Iterator[Finding]:
    """BF16 and INT8 pay with instructions for them only."""
    if facts.cpu_flags and "avx2" not in facts.cpu_flags:
        yield Finding(
            weight=LIMITS,
            what="the processor has no AVX2",
            why="OpenVINO is slow without it, and BF16 and INT8 profiles slower than FP32",
            fix="serve FP32 (PROFILE=swint-cpu), or on a newer processor",
        )


RULES: Final[Sequence[Rule]] = (
    python_version,
    platform,
    numpy_of_the_server,
    driver_missing,
    driver_too_old,
    image_for_the_driver,
    gpu_too_old,
    no_kernels_in_torch,
    torch_without_cuda,
    newest_gpus,
    tensorrt_of_the_server,
    stale_plans,
    container_toolkit,
    shared_memory,
    memory,
    disk,
    ports,
    slow_processor,
)


def _tensorrt(facts: Facts) -> Version | None:
    """Version of the full TensorRT that is installed."""
    for name in ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"):
        if found := parse_version(facts.packages.get(name, "")):
            return found[:3]
    found = facts.libraries.get("libnvinfer", ())
    return found[:3] or None


def _tensorrt_of_image(facts: Facts, table: Compatibility) -> Version | None:
    return next((one.tensorrt for one in table.images if one.release == facts.triton_image), None)


def _newest_cuda(driver: Version, table: Compatibility) -> str:
    known = [major for major, needed in sorted(table.min_driver_by_cuda.items()) if driver >= needed]
    return str(known[-1]) if known else "that the driver runs"


def _tag(release: Version) -> str:
    return f"{release[0]}.{release[1]:02d}"
