"""What `gdino-build gpu-check` does, and prints."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import safetensors.torch

from gdino_build.against_original import find_golden
from gdino_build.bench_engine import CAPTION as TIMED_CAPTION
from gdino_build.golden import Golden, weights_sha256
from gdino_build.gpu_check.comparison import cases_within
from gdino_build.gpu_check.contenders import Absent, Place, find_contenders
from gdino_build.gpu_check.gpu import Gpu, read_gpu
from gdino_build.gpu_check.measurement import measure
from gdino_build.gpu_check.process import RunnerProcess
from gdino_build.gpu_check.report import Report, write_report
from gdino_build.gpu_check.runner import CAPTION
from gdino_build.machine import describe_hardware, peak_bytes
from gdino_build.model import GroundingDino
from gdino_build.parity import Arrays
from gdino_build.profile import Profile
from gdino_build.verify import batch_inputs
from gdino_core.contract import INPUT_IDS
from gdino_core.errors import ConfigError, ParityError


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """How to check.

    Attributes:
        device: "cuda" or "cpu".
        batches: batch sizes.
        rounds: in which all take turns.
        image_hw: height and width of the pictures that are timed; None takes the first [verify] size.
        goldens: folder of the original's answers.
        root: the repository.
        out: root of all outputs.
    """

    device: str = "cuda"
    batches: tuple[int, ...] = (1, 4, 8)
    rounds: int = 10
    image_hw: tuple[int, int] | None = None
    goldens: Path = Path("tests/goldens")
    root: Path = Path()
    out: Path = Path("out")


def run_gpu_check(profiles: Sequence[Profile], model: GroundingDino, options: CheckOptions) -> Report:
    """Compare and time all that can run the model here; writes out/gpu-check.json and .md (gpu-check-cpu on a CPU).

    Args:
        profiles: built, of one model and different precisions.
        model: the weights that they were built from.
        options: how.

    Raises:
        ConfigError: there is no GPU, nothing can run, or the profiles are not of one model.
        ParityError: something failed, or FP32 is not within its tolerance; the report is written before.
    """
    _check_profiles(profiles)
    name = "gpu-check" if options.device == "cuda" else f"gpu-check-{options.device}"
    weights = options.out / name / "weights.safetensors"
    gpu, no_gpu = _find_gpu(options.device)
    place = Place(
        root=options.root,
        out=options.out,
        weights=weights,
        device=options.device,
        capability=gpu.capability if gpu else None,
    )
    contenders, absent = find_contenders(profiles, place)
    if no_gpu:
        raise ConfigError(f"{no_gpu.message}\n{_lines(absent)}", fix=no_gpu.fix)
    if not contenders:
        raise ConfigError(f"nothing here can run the model\n{_lines(absent)}", fix="install or build one of them")
    weights.parent.mkdir(parents=True, exist_ok=True)
    state = model.state_dict()
    safetensors.torch.save_file(state, weights)
    image_hw = options.image_hw or profiles[0].verify_sizes[0]
    batches = {batch: _timed_inputs(image_hw, batch, profiles[0]) for batch in sorted(options.batches)}
    rows = measure(
        contenders,
        batches,
        _golden(profiles[0], weights_sha256((key, value.numpy()) for key, value in state.items()), options.goldens),
        open_meter=_open_gpu_meter if gpu else _open_process_meter,
        rounds=options.rounds,
        log=weights.with_name("runners.log"),
    )
    report = Report(
        hardware=_hardware(gpu),
        versions={"python": platform.python_version(), "groundingdino-triton": version("groundingdino-triton")},
        model=profiles[0].architecture.name,
        image_hw=image_hw,
        tokens=next(iter(batches.values()))[INPUT_IDS].shape[1],
        rounds=options.rounds,
        rows=rows,
        absent=absent,
    )
    paths = write_report(report, options.out, name)
    print(report.to_markdown())
    print(f"wrote {', '.join(map(str, paths))}")
    if faults := report.faults():
        raise ParityError("\n".join(faults), fix=f"what the runners printed is in {weights.with_name('runners.log')}")
    return report


def _check_profiles(profiles: Sequence[Profile]) -> None:
    precisions = {profile.precision for profile in profiles}
    if len({profile.architecture for profile in profiles}) > 1 or len(precisions) < len(profiles):
        names = ", ".join(profile.name for profile in profiles)
        raise ConfigError(f"{names} are not one model in several precisions", fix="name one profile for each")


def _find_gpu(device: str) -> tuple[Gpu | None, ConfigError | None]:
    if device == "cpu":
        return None, None
    try:
        return read_gpu(), None
    except ConfigError as error:
        return None, error


def _golden(profile: Profile, sha256: str, folder: Path) -> Golden | None:
    """The golden of the weights, without the pictures that fit no bucket, which a plan cannot take."""
    golden = find_golden(folder, sha256)
    if golden is None:
        print(f"no answers of the original for these weights in {folder}: answers are not compared")
        return None
    settings = profile.preprocess
    within = cases_within(golden, settings.resolution_buckets, max(settings.text_buckets))
    return within if within.cases else None


def _timed_inputs(image_hw: tuple[int, int], batch: int, profile: Profile) -> Arrays:
    """Different pictures that fill their frame, with one prompt: in a batch the original mixes up several."""
    inputs = batch_inputs(image_hw, [(image_hw, TIMED_CAPTION)] * batch, profile.preprocess.text_buckets)
    return {**inputs, CAPTION: np.array([TIMED_CAPTION] * batch)}


def _open_gpu_meter() -> Callable[[RunnerProcess], int]:
    before = read_gpu().used_bytes  # of a GPU that no one else uses: in a container its driver names no processes
    return lambda _: read_gpu().used_bytes - before


def _open_process_meter() -> Callable[[RunnerProcess], int]:
    return lambda process: peak_bytes(process.pid)


def _hardware(gpu: Gpu | None) -> dict[str, str | int]:
    described: dict[str, str | int] = {"cpu": describe_hardware()}
    if gpu:
        capability = f"{gpu.capability // 10}.{gpu.capability % 10}"
        described |= {"gpu": gpu.name, "driver": gpu.driver, "capability": capability, "memory_bytes": gpu.memory_bytes}
    return described


def _lines(absent: Sequence[Absent]) -> str:
    return "\n".join(f"  {one.runner} {one.precision}: {one.reason}" for one in absent)
