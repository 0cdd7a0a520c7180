"""Run the tools and read the files that tell of this machine."""

import contextlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gdino_build.doctor import parsing
from gdino_build.doctor.facts import Driver, Facts, Plan, Torch, parse_version
from gdino_build.machine import cpu_flags, memory_limit_bytes
from gdino_build.server_ports import ServerPorts, listener_of
from gdino_core.errors import GdinoError

# torch.cuda.get_arch_list() is empty where no GPU is, the flags that it reads are not.
TORCH_PROBE = """
import json, torch
flags = getattr(torch._C, "_cuda_getArchFlags", str)() or ""
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "archs": flags.split()}))
"""
_SECONDS = 60
_NVIDIA_VENDOR = "0x10de"


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a tool printed, its errors behind, and its exit code; None where there is no such tool."""

    text: str
    exit_code: int | None


def run_tool(command: Sequence[str]) -> Ran:
    """Run a tool; one that hangs or is not there is a finding, no failure."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False)
    except FileNotFoundError:
        return Ran(text="", exit_code=None)
    except (OSError, subprocess.SubprocessError) as error:
        return Ran(text=str(error), exit_code=-1)
    return Ran(text=ran.stdout + ran.stderr, exit_code=ran.returncode)


def collect_facts(root: Path, environment: Path) -> Facts:
    """Look at this machine.

    Args:
        root: of the project.
        environment: the project's virtual environment, which need not be there.
    """
    gpus, version = parsing.parse_gpus(
        run_tool(["nvidia-smi", f"--query-gpu={parsing.GPU_QUERY}", "--format=csv,noheader,nounits"]).text
    )
    smi = run_tool(["nvidia-smi"])
    docker = run_tool(["docker", "info", "--format", "{{json .Runtimes}}"])
    python = environment / "bin" / "python"
    return Facts(
        python=sys.version_info[:3],
        platform=f"{platform.system()} {platform.machine()}",
        glibc=parse_version(platform.libc_ver()[1]) or None,
        in_container=Path("/.dockerenv").exists() or Path("/run/.containerenv").exists(),
        triton_image=parsing.parse_triton_image(os.environ),
        docker_runtimes=None if docker.exit_code else parsing.parse_docker_runtimes(docker.text),
        has_nvidia_card=any(_read(path).strip() == _NVIDIA_VENDOR for path in _pci_vendors()),
        driver=parsing.parse_driver(smi.text, smi.exit_code, version)
        if smi.exit_code is not None
        else Driver(failure="there is no nvidia-smi"),
        gpus=gpus,
        cuda_toolkit=parsing.parse_nvcc(run_tool(["nvcc", "--version"]).text),
        packages=_packages(environment),
        torch=_torch(python),
        libraries=parsing.parse_libraries(run_tool([shutil.which("ldconfig") or "/sbin/ldconfig", "-p"]).text),
        plans=list(_plans(root / "out")),
        cpu_flags=cpu_flags(),
        memory_bytes=memory_limit_bytes() if platform.system() == "Linux" else None,
        disk_free_bytes=shutil.disk_usage(root).free,
        shared_memory_bytes=shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else None,
        taken_ports=_taken_ports(),
    )


def _packages(environment: Path) -> dict[str, str]:
    found = {}
    for folder in environment.glob("lib/python*/site-packages"):
        for one in importlib.metadata.distributions(path=[str(folder)]):
            name = one.metadata["Name"]
            if name:
                found[name.lower().replace("_", "-")] = one.version
    if (environment / "tritonserver" / "pytriton").is_dir():
        found["tritonserver"] = "embedded"
    return found


def _torch(python: Path) -> Torch | None:
    return parsing.parse_torch(run_tool([str(python), "-c", TORCH_PROBE]).text) if python.exists() else None


def _plans(out: Path) -> Iterator[Plan]:
    for path in sorted(out.glob("*/engine/sm*/*.plan")):
        plan = parsing.parse_plan(str(path), _read(path.with_suffix(".json")))
        if plan is not None:
            yield plan


def _taken_ports() -> list[tuple[str, int, str]]:
    try:
        wanted = ServerPorts.from_environment(os.environ).by_variable()
    except GdinoError:  # what is wrong with them is told when they are used
        return []
    holders = {variable: listener_of(port) for variable, port in wanted.items()}
    return [(variable, wanted[variable], holder) for variable, holder in holders.items() if holder]


def _pci_vendors() -> Iterator[Path]:
    return Path("/sys/bus/pci/devices").glob("*/vendor")


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""
