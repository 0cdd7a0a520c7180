"""Find what can run the model here, and say of everything else why it cannot."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import onnxruntime as ort

from gdino_build.gpu_check.process import Contender
from gdino_build.model import ARCHITECTURES, ModelConfig
from gdino_build.precision import GRAPHS
from gdino_build.profile import Profile
from gdino_build.tensorrt.flavour import FULL, RTX, find_flavour
from gdino_build.tensorrt.manifest import check_plan, read_manifest
from gdino_build.tensorrt.plan import plan_folder
from gdino_core.errors import ExportError, GdinoError

ORIGINAL = "original"
_PROBE_SECONDS = 300  # the first import of torch from a cold disk
_ENVIRONMENT = {
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # nvidia-smi's order
    "OMP_WAIT_POLICY": "PASSIVE",  # on a CPU, threads of those that wait would spin while another is timed
}
_PROBE = """
import torch
if torch.version.cuda is None: raise SystemExit(f"torch {torch.__version__} is built without CUDA")
try: torch.ones(1, device="cuda").sum().item()
except Exception as error: raise SystemExit(f"torch {torch.__version__} cannot use it: {str(error).splitlines()[0]}")
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where everything is.

    Attributes:
        root: the repository, whose tests/reference runs the original.
        out: root of all outputs.
        weights: .safetensors of official names, the weights that the graphs were exported from.
        device: "cuda" or "cpu".
        capability: compute capability of the GPU; None without one.
    """

    root: Path
    out: Path
    weights: Path
    device: str
    capability: int | None


@dataclass(frozen=True, kw_only=True)
class Absent:
    """A runner that cannot be used here, why, and what helps."""

    runner: str
    precision: str
    reason: str
    fix: str


_Start = tuple[Sequence[str], dict[str, str]]  # command and further variables


def find_contenders(profiles: Sequence[Profile], place: Place) -> tuple[list[Contender], list[Absent]]:
    """Everything that could run the model: what can here, and what cannot.

    Args:
        profiles: built, of one model and different precisions.
        place: where to look.
    """
    contenders: list[Contender] = []
    absent: list[Absent] = []

    def consider(runner: str, precision: str, start: Callable[[], _Start]) -> None:
        try:
            command, environment = start()
        except GdinoError as error:
            absent.append(Absent(runner=runner, precision=precision, reason=error.message, fix=error.fix))
            return
        environment |= _ENVIRONMENT
        contenders.append(Contender(runner=runner, precision=precision, command=command, environment=environment))

    for precision in ("fp32", "fp16"):
        consider(ORIGINAL, precision, partial(_original, profiles[0].architecture, precision, place))
    for precision in ("fp32", "fp16"):
        consider("PyTorch", precision, partial(_torch, profiles[0].architecture, precision, place))
    for profile in profiles:
        consider("ONNX Runtime", profile.precision, partial(_onnxruntime, profile, place))
    for runner, flavour in (("TensorRT", FULL), ("TensorRT-RTX", RTX)):
        for profile in profiles:
            consider(runner, profile.precision, partial(_tensorrt, profile, flavour, place))
    return contenders, absent


def _original(architecture: ModelConfig, precision: str, place: Place) -> _Start:
    _check_known(architecture)
    python = _reference_python(place.root)
    if not python.is_file():
        raise ExportError(
            f"the original's environment {python.parents[1]} is not there",
            fix="make it with tests/reference/make_environment.sh",
        )
    _check_torch(python, place.device)
    model = architecture.name.partition("-")[0]
    return [
        *(str(python.absolute()), "-m", "tests.reference.time_original_gpu", "--model", model),
        *("--weights", str(place.weights.resolve()), "--device", place.device, "--precision", precision),
    ], {"PYTHONPATH": f"{(place.root / 'build').resolve()}{os.pathsep}{place.root.resolve()}"}


def _torch(architecture: ModelConfig, precision: str, place: Place) -> _Start:
    _check_known(architecture)
    _check_torch(Path(sys.executable), place.device)
    return _ours("torch", precision, place, place.weights, "--architecture", architecture.name)


def _onnxruntime(profile: Profile, place: Place) -> _Start:
    wanted = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}[place.device]
    if wanted not in ort.get_available_providers():
        raise ExportError(
            f"onnxruntime {ort.__version__} is built without {wanted}",
            fix=f"pip uninstall onnxruntime, and pip install onnxruntime-gpu=={ort.__version__}",
        )
    graphs = place.out / profile.name / "onnx" / profile.precision
    _check_files([graphs / f"{name}.onnx" for name in GRAPHS], f"gdino-build precision --profile {profile.name}")
    return _ours("onnxruntime", profile.precision, place, graphs)


def _tensorrt(profile: Profile, flavour_name: str, place: Place) -> _Start:
    flavour = find_flavour(flavour_name)
    if place.capability is None:
        raise ExportError(
            f"{flavour} is installed, and runs on a GPU only", fix="run it on a machine with an NVIDIA GPU"
        )
    plans = plan_folder(place.out / profile.name / "engine", place.capability)
    command = f"make engines PROFILE={profile.name} SM={place.capability}"
    _check_files([plans / f"{name}.plan" for name in GRAPHS], command)
    for name in GRAPHS:
        check_plan(read_manifest(plans / f"{name}.plan"), flavour.name, flavour.version, place.capability)
    _check_torch(Path(sys.executable), place.device)  # it holds the buffers
    return _ours(flavour_name, profile.precision, place, plans)


def _ours(kind: str, precision: str, place: Place, files: Path, *more: str) -> _Start:
    command = [sys.executable, "-m", "gdino_build.gpu_check", kind, "--files", str(files), "--precision", precision]
    return [*command, "--device", place.device, *more], {}


def _reference_python(root: Path) -> Path:
    return root / ".venv-reference" / "bin" / "python"


def _check_known(architecture: ModelConfig) -> None:
    if architecture not in ARCHITECTURES.values():
        raise ExportError(
            f"{architecture.name} is none of the architectures {', '.join(ARCHITECTURES)}",
            fix="choose a profile that names its architecture",
        )


def _check_torch(python: Path, device: str) -> None:
    if device == "cuda" and (lack := _torch_lack(python)):
        raise ExportError(lack, fix="install the torch that PyTorch builds for this GPU and its driver")


@cache
def _torch_lack(python: Path) -> str:
    """Why an environment's torch cannot use the GPU; "" if it can. Asked in a process: here it would take memory."""
    command = [str(python.absolute()), "-c", _PROBE]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        return f"{python} does not import torch: {error}"
    return found.stderr.strip().rpartition("\n")[2] if found.returncode else ""


def _check_files(paths: Sequence[Path], command: str) -> None:
    for path in paths:
        if not path.is_file():
            raise ExportError(f"{path} does not exist", fix=command)
