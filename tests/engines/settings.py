"""What the plans of the tests are compiled for; imports no torch, for the processes that the tests start."""

from pathlib import Path

from gdino_build.tensorrt.optimisation_profiles import Buckets
from gdino_build.tensorrt.settings import PlanSettings


def make_settings(
    folder: Path,
    *,
    capability: int = 89,
    resolutions: tuple[tuple[int, int], ...] = ((64, 96), (96, 64)),
    workspace_bytes: int = 1 << 30,
) -> PlanSettings:
    return PlanSettings(
        profile_name="gpu-fp16",
        capability=capability,
        buckets=Buckets(resolutions=resolutions, tokens=(16, 32, 64), max_batch_size=4),
        workspace_bytes=workspace_bytes,
        timing_caches=folder / "timings",
    )
