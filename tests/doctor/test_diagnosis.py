"""Each situation that users report is told with its cause and what mends it, and nothing else is made up."""

from dataclasses import replace

import pytest

from gdino_build.doctor.compatibility import load_compatibility
from gdino_build.doctor.diagnosis import BLOCKS, LIMITS, diagnose
from gdino_build.doctor.facts import Driver, Facts, Plan, parse_version
from gdino_build.doctor.parsing import (
    parse_docker_runtimes,
    parse_driver,
    parse_gpus,
    parse_libraries,
    parse_nvcc,
    parse_plan,
    parse_torch,
    parse_triton_image,
)
from gdino_build.doctor.report import format_report
from tests.doctor import recorded

GIB = 1 << 30
CPU_MACHINE = Facts(
    python=(3, 11, 7),
    platform="Linux x86_64",
    glibc=(2, 36),
    packages={"torch": "2.13.0+cpu", "numpy": "1.26.4", "openvino": "2026.4.1", "tritonserver": "embedded"},
    torch=parse_torch(recorded.TORCH_CPU),
    cpu_flags=("avx2", "avx512f"),
    memory_bytes=16 * GIB,
    disk_free_bytes=100 * GIB,
    shared_memory_bytes=8 * GIB,
)


def gpu_machine(query: str, header: str, **others: object) -> Facts:
    gpus, version = parse_gpus(query)
    facts = replace(
        CPU_MACHINE,
        has_nvidia_card=True,
        gpus=gpus,
        driver=parse_driver(header, 0, version),
        torch=None,
        packages={"numpy": "1.26.4"},
        libraries=parse_libraries(recorded.LDCONFIG),
    )
    return replace(facts, **others)  # type: ignore[arg-type]


PLAN = Plan(
    path="out/gpu-fp16/engine/sm89/detector.plan",
    flavour="tensorrt",
    version="10.3.0",
    capability=89,
    rebuild_command="make engines PROFILE=gpu-fp16",
)
GOOD_GPU = gpu_machine(recorded.QUERY_4090, recorded.SMI_570)
NO_DRIVER = replace(CPU_MACHINE, has_nvidia_card=True)

SITUATIONS = [
    ("another Python", replace(CPU_MACHINE, python=(3, 12, 3)), BLOCKS, "Python 3.12.3", "install Python 3.11"),
    ("an ARM machine", replace(CPU_MACHINE, platform="Linux aarch64"), BLOCKS, "this is Linux aarch64", "image"),
    (
        "numpy 2 beside the server",
        replace(CPU_MACHINE, packages={"numpy": "2.1.0", "tritonserver": "embedded"}),
        BLOCKS,
        "numpy 2.1.0",
        "make setup",
    ),
    (
        "a card without a driver",
        replace(NO_DRIVER, driver=Driver(failure="there is no nvidia-smi")),
        LIMITS,
        "cannot be used: there is no nvidia-smi",
        "install NVIDIA's driver",
    ),
    (
        "a driver updated under a running kernel",
        replace(NO_DRIVER, driver=parse_driver(recorded.NVML_MISMATCH, 18, None)),
        LIMITS,
        "Driver/library version mismatch NVML library version: 570.124",
        "reboot",
    ),
    (
        "a module that is not loaded",
        replace(NO_DRIVER, driver=parse_driver(recorded.NOT_LOADED, 9, None)),
        LIMITS,
        "couldn't communicate",
        "modprobe nvidia",
    ),
    (
        "a container without --gpus",
        replace(NO_DRIVER, in_container=True, driver=Driver(failure="there is no nvidia-smi")),
        LIMITS,
        "cannot be used",
        "--gpus all",
    ),
    (
        "a driver too old for the toolkit",
        replace(GOOD_GPU, cuda_toolkit=parse_nvcc(recorded.NVCC_13)),
        LIMITS,
        "driver 570.124.6 is too old for the CUDA toolkit of CUDA 13.0",
        "install a build for CUDA 12",
    ),
    (
        "a driver too old for torch",
        replace(GOOD_GPU, torch=parse_torch(recorded.TORCH_CU130)),
        LIMITS,
        "too old for torch of CUDA 13.0",
        "update the driver to 580",
    ),
    (
        "a workstation's driver too old for the image",
        gpu_machine(recorded.QUERY_QUADRO_535, recorded.SMI_535),
        LIMITS,
        "driver 535.129.3 is too old for tritonserver:24.12-py3",
        "update the driver",
    ),
    (
        "a GPU without kernels in TensorRT",
        gpu_machine(recorded.QUERY_P40_470, recorded.SMI_470, libraries={"libnvinfer": (10, 7, 0)}),
        LIMITS,
        "Tesla P40 has compute capability 6.1",
        "serve a CPU profile",
    ),
    (
        "invalid device function: a torch without the GPU's kernels",
        gpu_machine(
            recorded.QUERY_5090,
            recorded.SMI_570,
            torch=parse_torch(recorded.TORCH_CU124),
            libraries={"libnvinfer": (10, 9, 0)},
        ),
        LIMITS,
        "torch 2.7.0.dev20250310+cu124 has no kernels for NVIDIA GeForce RTX 5090 (12.0)",
        "cu128",
    ),
    (
        "a TensorRT older than the GPU",
        gpu_machine(recorded.QUERY_5090, recorded.SMI_570),
        LIMITS,
        "TensorRT 10.7.0 does not know NVIDIA GeForce RTX 5090",
        "25.03 or newer",
    ),
    (
        "a CPU build of torch beside a GPU",
        replace(GOOD_GPU, torch=CPU_MACHINE.torch),
        LIMITS,
        "is a CPU build",
        "CUDA index",
    ),
    (
        "only TensorRT-RTX beside a GPU",
        replace(GOOD_GPU, libraries={}, packages={"tensorrt-rtx": "1.7.1.116"}),
        LIMITS,
        "no full TensorRT, only TensorRT-RTX",
        "NVIDIA's image",
    ),
    (
        "a plan of another TensorRT",
        replace(GOOD_GPU, plans=[PLAN]),
        LIMITS,
        "built by tensorrt 10.3.0",
        PLAN.rebuild_command,
    ),
    (
        "a plan for another GPU",
        replace(GOOD_GPU, plans=[replace(PLAN, version="10.7.0", capability=80)]),
        LIMITS,
        "is for compute capability 8.0",
        "SM=89",
    ),
    (
        "Docker without NVIDIA's runtime",
        replace(GOOD_GPU, docker_runtimes=parse_docker_runtimes(recorded.DOCKER_WITHOUT_NVIDIA)),
        LIMITS,
        "Docker has the runtimes io.containerd.runc.v2, runc",
        "nvidia-container-toolkit",
    ),
    (
        "Docker's /dev/shm",
        replace(CPU_MACHINE, shared_memory_bytes=64 << 20),
        BLOCKS,
        "/dev/shm has 64 MiB",
        "--shm-size=1g",
    ),
    ("a small machine", replace(CPU_MACHINE, memory_bytes=2 * GIB), LIMITS, "2.0 GiB of memory", "demo profile"),
    ("a full disk", replace(CPU_MACHINE, disk_free_bytes=GIB), LIMITS, "1.0 GiB of disk", "free some"),
    (
        "a taken port",
        replace(CPU_MACHINE, taken_ports=[("GRPC_PORT", 8001, "python3 (pid 71)")]),
        LIMITS,
        "port 8001 is taken by python3",
        "GRPC_PORT=9001",
    ),
    ("an old processor", replace(CPU_MACHINE, cpu_flags=("sse4_2",)), LIMITS, "no AVX2", "swint-cpu"),
]


@pytest.mark.parametrize(
    ("facts", "weight", "what", "fix"), [pytest.param(*rest, id=name) for name, *rest in SITUATIONS]
)
def test_a_situation_is_told_with_what_mends_it_and_nothing_else_is(
    facts: Facts, weight: str, what: str, fix: str
) -> None:
    [finding] = diagnose(facts, load_compatibility())
    assert finding.weight == weight
    assert what in finding.what
    assert fix in finding.fix
    text = format_report(facts, [finding])
    assert finding.why in text
    assert ("cannot serve as it is" in text) == (weight == BLOCKS)


@pytest.mark.parametrize(
    "facts",
    [
        CPU_MACHINE,
        GOOD_GPU,
        replace(GOOD_GPU, docker_runtimes=parse_docker_runtimes(recorded.DOCKER_WITH_NVIDIA)),
        # A data centre's GPU may have an older branch of the driver than others: rel-24-12, Driver Requirements.
        gpu_machine(recorded.QUERY_T4_535, recorded.SMI_535),
        # Plans of TensorRT-RTX are for no server, and are of no other version than theirs.
        replace(GOOD_GPU, plans=[replace(PLAN, flavour="tensorrt-rtx", version="1.7.1.116")]),
        replace(CPU_MACHINE, python=(3, 12, 3), triton_image=(24, 12)),
    ],
)
def test_nothing_is_wrong_with_a_machine_that_works(facts: Facts) -> None:
    assert diagnose(facts, load_compatibility()) == []


def test_what_blocks_stands_first() -> None:
    facts = replace(CPU_MACHINE, disk_free_bytes=0, shared_memory_bytes=64 << 20)
    assert [finding.weight for finding in diagnose(facts, load_compatibility())] == [BLOCKS, LIMITS]


def test_tools_are_read_as_they_print() -> None:
    gpus, driver = parse_gpus(recorded.QUERY_QUADRO_535)
    assert [(gpu.capability, gpu.memory_mib) for gpu in gpus] == [(75, 8192)] * 2
    assert parse_driver(recorded.SMI_535, 0, driver) == Driver(version=(535, 129, 3), cuda=(12, 2))
    assert parse_gpus("NVIDIA GB10, 12.1, [N/A], 580.95.05\n")[0][0].memory_mib == 0
    assert parse_gpus("No devices were found\n") == ([], None)
    assert parse_libraries(recorded.LDCONFIG) == {"libnvinfer": (10, 7, 0), "libcudart": (12,)}
    assert parse_nvcc("command not found") is None
    assert parse_torch("ModuleNotFoundError: No module named 'torch'") is None
    assert parse_plan("some.plan", "{}") is None
    assert parse_triton_image({"NVIDIA_TRITON_SERVER_VERSION": "24.12"}) == (24, 12)
    assert parse_triton_image({}) is None
    assert parse_docker_runtimes("Cannot connect to the Docker daemon") is None


@pytest.mark.parametrize(
    ("text", "version"),
    [("10.7.0.23", (10, 7, 0, 23)), ("2.13.0+cpu", (2, 13, 0)), ("2.7.0rc1", (2, 7, 0)), ("", ()), ("dev", ())],
)
def test_versions_are_their_leading_numbers(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version
