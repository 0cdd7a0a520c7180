"""A repository for GPUs has plans for each kind of GPU, and says which GPUs have which model."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gdino_build.assemble import ENGINE_MODELS, RepositoryPlan, assemble_repository
from gdino_build.profile import load_profile
from gdino_build.serving import ServingSettings
from gdino_build.tensorrt.flavour import Flavour
from gdino_build.tensorrt.manifest import read_manifest, write_manifest
from gdino_build.tensorrt.plan import onnx_to_plan, plan_folder
from gdino_build.tensorrt.repository_plans import TensorRtPlans
from gdino_build.triton_config import read_config
from gdino_core.errors import ConfigError, ExportError
from gdino_core.settings import PreprocessSettings
from tests.engines.graphs import write_small_detector
from tests.engines.settings import make_settings
from tests.serve.standin import write_text_encoder

SOURCES = Path(__file__).parents[2] / "model_repository"
RESOLUTIONS = ((64, 96), (96, 64), (64, 192), (192, 64))
BATCH = 4


@pytest.fixture(scope="module")
def compiled(flavour: Flavour, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graphs in onnx/ and plans in engine/, those of SM 89 again as SM 120.

    They are TensorRT-RTX's: full TensorRT would need a GPU. Their manifests say what its would.
    """
    folder = tmp_path_factory.mktemp("plans")
    write_text_encoder(folder / "onnx" / "text_encoder.onnx")
    write_small_detector(folder / "onnx" / "detector.onnx")
    settings = make_settings(folder, resolutions=RESOLUTIONS)
    plans = plan_folder(folder / "engine", settings.capability)
    for name in ENGINE_MODELS:
        manifest = onnx_to_plan(folder / "onnx" / f"{name}.onnx", plans / f"{name}.plan", settings, flavour)
        full = dataclasses.replace(manifest, flavour="tensorrt", version="10.9.0.34")
        write_manifest(full, plans / f"{name}.json")
    shutil.copytree(plans, plan_folder(folder / "engine", 120))
    return folder


@pytest.fixture
def folder(compiled: Path, tmp_path: Path) -> Path:
    return shutil.copytree(compiled, tmp_path / "built")


def plan_of(folder: Path, **serving: object) -> RepositoryPlan:
    return RepositoryPlan(
        sources=SOURCES,
        engines=TensorRtPlans(folder=folder / "engine", graphs=folder / "onnx", max_batch_size=BATCH),
        preprocess=PreprocessSettings(
            short_side=64,
            long_side=96,
            resolution_buckets=RESOLUTIONS,
            text_buckets=(16, 32, 64),
            max_prompts=BATCH,
        ),
        serving=dataclasses.replace(ServingSettings(), **serving),  # type: ignore[arg-type]
        profile={},
        weights={},
    )


def test_each_kind_of_gpu_loads_the_plan_that_was_compiled_for_it(folder: Path, tmp_path: Path) -> None:
    repository = assemble_repository(plan_of(folder), tmp_path / "repository").parent
    for name in ENGINE_MODELS:
        config = read_config(repository / name / "config.pbtxt")
        assert dict(config.cc_model_filenames) == {"8.9": "sm89.plan", "12.0": "sm120.plan"}
        for capability in (89, 120):
            served = repository / name / "1" / f"sm{capability}.plan"
            assert served.read_bytes() == (folder / "engine" / f"sm{capability}" / f"{name}.plan").read_bytes()
            assert read_manifest(served).version == "10.9.0.34"


def test_nothing_of_the_python_backend_is_left_in_a_model_of_plans(folder: Path, tmp_path: Path) -> None:
    repository = assemble_repository(plan_of(folder), tmp_path / "repository").parent
    for name in ENGINE_MODELS:
        config = read_config(repository / name / "config.pbtxt")
        assert config.backend == "tensorrt"
        assert not [key for key in config.parameters if key.startswith("openvino")]
        assert not [tensor.name for tensor in config.input if tensor.allow_ragged_batch]
        assert not list((repository / name).rglob("*.py"))
    assert (repository / "preprocess" / "1" / "model.py").is_file()


def test_copies_run_on_each_gpu_that_the_profile_names(folder: Path, tmp_path: Path) -> None:
    plan = plan_of(folder, instances_per_gpu=2, text_encoder_gpus=(0,), detector_gpus=(1, 2))
    repository = assemble_repository(plan, tmp_path / "repository").parent
    groups = {name: read_config(repository / name / "config.pbtxt").instance_group for name in ENGINE_MODELS}
    placed = {name: [(group.count, list(group.gpus)) for group in found] for name, found in groups.items()}
    assert placed == {"text_encoder": [(2, [0])], "detector": [(2, [1, 2])]}


def test_every_bucket_is_warmed_up_and_the_largest_with_a_full_batch(folder: Path, tmp_path: Path) -> None:
    repository = assemble_repository(plan_of(folder), tmp_path / "repository").parent
    samples = read_config(repository / "detector" / "config.pbtxt").model_warmup
    assert len({tuple(sample.inputs["PIXELS"].dims) for sample in samples}) == 4
    assert sorted(sample.batch_size for sample in samples) == [1, 1, 1, 1, BATCH]


def of_another_graph(folder: Path) -> None:
    write_text_encoder(folder / "onnx" / "detector.onnx")


def without_plans(folder: Path) -> None:
    shutil.rmtree(folder / "engine")


def of_another_tensorrt(folder: Path) -> None:
    plan = folder / "engine" / "sm120" / "detector.plan"
    write_manifest(dataclasses.replace(read_manifest(plan), version="10.8.0.1"), plan.with_suffix(".json"))


def of_other_buckets(folder: Path) -> None:
    plan = folder / "engine" / "sm89" / "detector.plan"
    manifest = read_manifest(plan)
    buckets = dataclasses.replace(manifest.buckets, tokens=(16, 32))
    write_manifest(dataclasses.replace(manifest, buckets=buckets), plan.with_suffix(".json"))


def of_rtx(folder: Path) -> None:
    for plan in folder.glob("engine/*/*.plan"):
        write_manifest(dataclasses.replace(read_manifest(plan), flavour="tensorrt-rtx"), plan.with_suffix(".json"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (of_another_graph, r"plan of detector for SM=89 is not of the graph .*\n  fix: rebuild it: make engines"),
        (without_plans, r"there are no plans in .*\n  fix: make engines, with SM=89"),
        (
            of_another_tensorrt,
            r"of TensorRT 10.8.0.1 and 10.9.0.34; a server has one\n  fix: rebuild them",
        ),
        (of_other_buckets, r"for SM=89 was compiled for other buckets than the profile has\n  fix: rebuild it"),
        (of_rtx, r"TensorRT backend cannot load a plan of tensorrt-rtx"),
    ],
)
def test_plans_that_would_not_serve_what_was_built_are_refused(
    folder: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(folder)
    with pytest.raises((ConfigError, ExportError), match=message):
        assemble_repository(plan_of(folder), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def own_profile(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_a_profile_that_asks_for_more_prompts_than_a_plan_takes_is_refused(tmp_path: Path) -> None:
    mine = own_profile(tmp_path, 'extends = "gpu-fp16"\n[preprocess]\nmax_prompts = 32\n')
    with pytest.raises(ConfigError, match=r"max_prompts is 32, .*in one batch\n  fix: set max_prompts = 8"):
        load_profile(mine)


def test_a_profile_without_gpus_cannot_place_models_on_them(tmp_path: Path) -> None:
    mine = own_profile(tmp_path, 'extends = "demo-cpu"\n[serving]\ndetector_gpus = [0]\n')
    with pytest.raises(ConfigError, match=r"names GPUs, and the runtime is openvino"):
        load_profile(mine)


def test_a_profile_places_models_on_gpus(tmp_path: Path) -> None:
    mine = own_profile(tmp_path, 'extends = "gpu-fp16"\n[serving]\ninstances_per_gpu = 2\ndetector_gpus = [1, 2]\n')
    serving = load_profile(mine).serving
    assert (serving.instances_per_gpu, serving.text_encoder_gpus, serving.detector_gpus) == (2, (), (1, 2))
    assert json.loads(json.dumps(load_profile(mine).to_dict()))["serving"]["detector_gpus"] == [1, 2]
    with pytest.raises(ConfigError, match=r"detector_gpus is \[1, 1\]\n  fix: name each GPU once"):
        load_profile(own_profile(tmp_path, 'extends = "gpu-fp16"\n[serving]\ndetector_gpus = [1, 1]\n'))
