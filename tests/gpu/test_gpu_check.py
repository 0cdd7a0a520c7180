"""The GPU check on a GPU: everything that is installed there computes what the original computes."""

from pathlib import Path

import pytest

from gdino_build.checkpoint import load_model
from gdino_build.clean import clean_file
from gdino_build.export import export_detector, export_text_encoder
from gdino_build.gpu_check.check import CheckOptions, run_gpu_check
from gdino_build.gpu_check.gpu import Gpu, read_gpu
from gdino_build.gpu_check.measurement import PASSES
from gdino_build.model import GroundingDino
from gdino_build.precision import GRAPHS
from gdino_build.precision.variants import write_variant
from gdino_build.profile import Profile, load_profile
from gdino_build.random_weights import random_state_dict
from gdino_build.tensorrt.flavour import find_flavour
from gdino_build.tensorrt.optimisation_profiles import Buckets
from gdino_build.tensorrt.plan import onnx_to_plan, plan_folder
from gdino_build.tensorrt.settings import PlanSettings
from gdino_core.errors import ConfigError, ExportError

pytestmark = pytest.mark.gpu

BATCHES = (1, 4, 8)
PRECISIONS = ("fp32", "fp16")


@pytest.fixture(scope="module")
def gpu() -> Gpu:
    try:
        return read_gpu()
    except ConfigError as error:
        pytest.skip(error.message)


def write_profile(base: str, precision: str, out: Path) -> Profile:
    file = out / f"gpu-{base}-{precision}.toml"
    settings = f'runtime = "tensorrt"\nprecision = "{precision}"\nmax_batch_size = {max(BATCHES)}\n'
    prompts = f"[preprocess]\nmax_prompts = {max(BATCHES)}\n"
    file.write_text(f'extends = "{base}"\n[engine]\n{settings}{prompts}', encoding="utf-8")
    return load_profile(str(file))


def build(profile: Profile, model: GroundingDino, gpu: Gpu, out: Path) -> None:
    """Graphs of the profile's precision, and plans where there is a TensorRT."""
    onnx = out / profile.name / "onnx"
    for name, export in zip(GRAPHS, (export_text_encoder, export_detector), strict=True):
        export(model, onnx / "raw" / f"{name}.onnx")
        clean_file(onnx / "raw" / f"{name}.onnx", onnx / f"{name}.onnx")
    write_variant(onnx, onnx / profile.precision, profile.precision)
    try:
        flavour = find_flavour()
    except ExportError:
        return
    settings = PlanSettings(
        profile_name=profile.name,
        capability=gpu.capability,
        buckets=Buckets(
            resolutions=profile.preprocess.resolution_buckets,
            tokens=profile.preprocess.text_buckets,
            max_batch_size=profile.max_batch_size,
        ),
        workspace_bytes=profile.workspace_mib << 20,
        timing_caches=out / "timings",
    )
    for name in GRAPHS:
        plan = plan_folder(out / profile.name / "engine", gpu.capability) / f"{name}.plan"
        onnx_to_plan(onnx / profile.precision / f"{name}.onnx", plan, settings, flavour)


@pytest.mark.parametrize("base", ["demo-cpu", pytest.param("swint-cpu", marks=pytest.mark.full)])
def test_all_that_runs_on_this_gpu_computes_what_the_original_computes(base: str, gpu: Gpu, tmp_path: Path) -> None:
    profiles = [write_profile(base, precision, tmp_path) for precision in PRECISIONS]
    architecture = profiles[0].architecture
    model = load_model(architecture, random_state_dict(architecture))
    for profile in profiles:
        build(profile, model, gpu, tmp_path)
    report = run_gpu_check(profiles, model, CheckOptions(batches=BATCHES, rounds=3, out=tmp_path))
    for row in report.rows:
        assert len(row.seconds) == 3 * PASSES
        assert row.peak_bytes is not None and row.peak_bytes > 0
        assert row.compared is not None
        assert row.compared.passed is (True if row.precision == "fp32" else None)
        # FP16 answers no other question. Of random weights, whose proposals tie, PyTorch's FP16 finds half on a CPU.
        assert row.compared.matched.found >= row.compared.matched.queries / 4
        assert row.compared.forced is None or row.compared.forced.max_abs_box < 1e-2
    ran = {(row.runner, row.precision) for row in report.rows}
    missing = {(one.runner, one.precision) for one in report.absent}
    runners = ("original", "PyTorch", "ONNX Runtime", "TensorRT", "TensorRT-RTX")
    assert ran | missing == {(runner, precision) for runner in runners for precision in PRECISIONS}
    assert ran
