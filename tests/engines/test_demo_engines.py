"""The demo's graphs compile in every precision for every generation of GPU, on a machine that has none."""

from pathlib import Path

import pytest

from gdino_build.tensorrt.flavour import Flavour
from gdino_build.tensorrt.manifest import PlanManifest, read_manifest
from gdino_build.tensorrt.plan import onnx_to_plan
from tests.engines.conftest import CAPABILITIES, PRECISIONS, Variants
from tests.engines.settings import make_settings

BUCKET = ((128, 192),)


def build(graphs: Variants, name: str, precision: str, capability: int, flavour: Flavour, folder: Path) -> PlanManifest:
    plan_path = folder / f"{name}.plan"
    settings = make_settings(folder, capability=capability, resolutions=BUCKET)
    onnx_to_plan(graphs.path(precision, name), plan_path, settings, flavour)
    return read_manifest(plan_path)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_text_encoder_compiles(
    demo: Variants, flavour: Flavour, tmp_path: Path, precision: str, capability: int
) -> None:
    manifest = build(demo, "text_encoder", precision, capability, flavour, tmp_path)
    assert manifest.capability == capability
    assert precision in manifest.products
    assert manifest.outputs["TEXT_FEATURES"].type_name == "FLOAT"


def test_the_detector_compiles_in_fp16(demo: Variants, flavour: Flavour, tmp_path: Path) -> None:
    check_detector(build(demo, "detector", "fp16", 89, flavour, tmp_path), "fp16")


@pytest.mark.full  # three minutes
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_detector_compiles(
    demo: Variants, flavour: Flavour, tmp_path: Path, precision: str, capability: int
) -> None:
    check_detector(build(demo, "detector", precision, capability, flavour, tmp_path), precision)


def check_detector(manifest: PlanManifest, precision: str) -> None:
    assert precision in manifest.products
    assert manifest.inputs["PIXELS"].type_name == "UINT8"  # the contract holds on a GPU too
    assert manifest.outputs["LOGITS"].dims == (-1, 60, -1)
    assert [profile["PIXELS"].opt for profile in manifest.profiles] == [(1, 3, 128, 192)]
