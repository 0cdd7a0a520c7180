"""Full-size Swin-T compiles for a GPU on a machine that has none, in bounded memory, and smaller in low precision."""

from pathlib import Path

import pytest

from gdino_build.model import SWINT_OGC
from gdino_build.tensorrt.flavour import Flavour
from gdino_build.tensorrt.plan import onnx_to_plan
from tests.engines.conftest import CAPABILITIES, GRAPHS, Variants, make_variants
from tests.engines.settings import make_settings

pytestmark = pytest.mark.full  # minutes each

BUCKET = ((800, 1216),)
WORKSPACE_BYTES = 4 << 30
MOST_MEMORY_BYTES = 6e9


@pytest.fixture(scope="session")
def swint(tmp_path_factory: pytest.TempPathFactory) -> Variants:
    return make_variants(SWINT_OGC, tmp_path_factory.mktemp("swint"))


@pytest.fixture(scope="session")
def fp32_bytes(swint: Variants, flavour: Flavour, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Size of each FP32 plan."""
    folder = tmp_path_factory.mktemp("fp32")
    settings = make_settings(folder, resolutions=BUCKET, workspace_bytes=WORKSPACE_BYTES)
    return {
        name: onnx_to_plan(swint.path("fp32", name), folder / f"{name}.plan", settings, flavour).plan_bytes
        for name in GRAPHS
    }


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_plan_of_lower_precision_is_smaller_and_takes_less_than_six_gigabytes_to_make(
    swint: Variants,
    flavour: Flavour,
    fp32_bytes: dict[str, int],
    tmp_path: Path,
    name: str,
    precision: str,
    capability: int,
) -> None:
    settings = make_settings(tmp_path, capability=capability, resolutions=BUCKET, workspace_bytes=WORKSPACE_BYTES)
    manifest = onnx_to_plan(swint.path(precision, name), tmp_path / f"{name}.plan", settings, flavour)
    assert precision in manifest.products
    assert manifest.peak_memory_bytes < MOST_MEMORY_BYTES
    assert manifest.plan_bytes < 0.75 * fp32_bytes[name]
