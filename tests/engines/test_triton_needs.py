"""What Triton must be told of a plan, in Triton's own schema."""

from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from gdino_build.tensorrt.flavour import Flavour
from gdino_build.tensorrt.manifest import PlanManifest
from gdino_build.tensorrt.plan import onnx_to_plan
from gdino_build.tensorrt.triton_needs import triton_needs, write_needs
from gdino_build.triton_config import Config, fit_to_engine, read_config
from gdino_core.errors import ConfigError
from tests.engines.settings import make_settings

SOURCES = Path(__file__).parents[2] / "model_repository"


@pytest.fixture(scope="module")
def rtx_manifest(small_detector: Path, flavour: Flavour, tmp_path_factory: pytest.TempPathFactory) -> PlanManifest:
    folder = tmp_path_factory.mktemp("triton")
    return onnx_to_plan(small_detector, folder / "detector.plan", make_settings(folder), flavour)


@pytest.fixture
def manifest(rtx_manifest: PlanManifest) -> PlanManifest:
    """As full TensorRT, which needs a GPU to compile, would have left it."""
    return replace(rtx_manifest, flavour="tensorrt", version="10.9.0.34")


@pytest.fixture
def config(manifest: PlanManifest) -> Config:
    config = read_config(SOURCES / "detector" / "config.pbtxt")
    needs = triton_needs(manifest)
    write_needs(config, needs, {89: "sm89.plan"})
    fit_to_engine(config, needs.interface)
    return config


def test_a_plan_of_rtx_is_refused_because_triton_has_no_backend_for_it(rtx_manifest: PlanManifest) -> None:
    with pytest.raises(ConfigError, match=r"cannot load a plan of tensorrt-rtx \S+\n  fix: compile it with full"):
        triton_needs(rtx_manifest)


def test_the_configuration_names_the_backend_the_file_and_every_profile(config: Config) -> None:
    written = text_format.Parse(text_format.MessageToString(config), model_config_pb2.ModelConfig())
    assert (written.backend, written.default_model_filename) == ("tensorrt", "sm89.plan")
    assert written.max_batch_size == 4
    (group,) = written.instance_group
    assert group.kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
    assert list(group.profile) == ["0", "1"]


def test_the_batch_axis_is_left_out_and_sizes_that_vary_are_left_open(config: Config) -> None:
    dims = {one.name: list(one.dims) for one in (*config.input, *config.output)}
    assert dims == {
        "PIXELS": [3, -1, -1],
        "VALID_HW": [2],
        "TEXT_FEATURES": [-1, 8],
        "POSITION_IDS": [-1],
        "PHRASE_IDS": [-1],
        "LOGITS": [2, -1],
        "BOXES_CXCYWH": [2, 4],
    }


def test_the_types_of_the_plan_are_those_of_the_contract(manifest: PlanManifest) -> None:
    config = read_config(SOURCES / "detector" / "config.pbtxt")
    half = replace(manifest.outputs["LOGITS"], type_name="HALF")
    with pytest.raises(ConfigError, match=r"output LOGITS of detector is TYPE_FP32 .* TYPE_FP16"):
        fit_to_engine(config, triton_needs(replace(manifest, outputs={**manifest.outputs, "LOGITS": half})).interface)
