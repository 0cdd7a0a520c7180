"""A plan and its manifest: what they say is true, they belong together, and nothing is left of a build that failed."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from gdino_build.tensorrt import compilation
from gdino_build.tensorrt.compilation import CompileJob, compile_plan, configure
from gdino_build.tensorrt.flavour import Flavour
from gdino_build.tensorrt.manifest import PlanManifest, check_plan, read_manifest
from gdino_build.tensorrt.optimisation_profiles import ShapeRange
from gdino_build.tensorrt.plan import current_manifest, onnx_to_plan, plan_folder
from gdino_build.tensorrt.settings import PlanSettings
from gdino_core.errors import ConfigError, ExportError
from tests.engines.graphs import node, write_graph
from tests.engines.settings import make_settings


@pytest.fixture(scope="module")
def plan_path(small_detector: Path, flavour: Flavour, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    path = plan_folder(folder, 89) / "detector.plan"
    onnx_to_plan(small_detector, path, make_settings(folder), flavour)
    return path


@pytest.fixture(scope="module")
def manifest(plan_path: Path) -> PlanManifest:
    return read_manifest(plan_path)


@pytest.fixture
def copied(plan_path: Path, tmp_path: Path) -> Path:
    """A plan of a test's own, to harm."""
    for suffix in (".plan", ".json", ".log"):
        (tmp_path / "detector").with_suffix(suffix).write_bytes(plan_path.with_suffix(suffix).read_bytes())
    return tmp_path / "detector.plan"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_manifest_tells_what_the_plan_was_made_from_and_for(
    manifest: PlanManifest, plan_path: Path, small_detector: Path, flavour: Flavour
) -> None:
    assert plan_path.parent.name == "sm89"
    assert manifest.onnx_sha256 == sha256(small_detector)
    assert (manifest.flavour, manifest.version, manifest.capability) == ("tensorrt-rtx", flavour.version, 89)
    assert (manifest.plan_bytes, manifest.plan_sha256) == (plan_path.stat().st_size, sha256(plan_path))
    assert manifest.rebuild_command == "make engines PROFILE=gpu-fp16 SM=89"
    assert manifest.products == {"fp32": 3}
    assert manifest.build_seconds > 0
    assert 50e6 < manifest.peak_memory_bytes < 2e9


def test_the_manifest_has_the_ranges_of_each_input_in_each_profile(manifest: PlanManifest) -> None:
    assert [profile["PIXELS"].max for profile in manifest.profiles] == [(4, 3, 64, 96), (4, 3, 96, 64)]
    assert all(profile["TEXT_FEATURES"].max == (4, 64, 8) for profile in manifest.profiles)
    assert manifest.profiles[0]["PHRASE_IDS"] == ShapeRange(min=(1, 16), opt=(1, 16), max=(4, 64))


def test_the_manifest_is_readable_without_this_program(plan_path: Path) -> None:
    content = json.loads(plan_path.with_suffix(".json").read_text(encoding="utf-8"))
    assert content["inputs"]["PIXELS"] == {"type_name": "UINT8", "dims": [-1, 3, -1, -1]}
    assert content["profiles"][1]["VALID_HW"] == {"min": [1, 2], "opt": [1, 2], "max": [4, 2]}


def test_what_tensorrt_said_is_kept(plan_path: Path) -> None:
    assert "INFO: " in plan_path.with_suffix(".log").read_text(encoding="utf-8")


def test_only_the_plan_its_manifest_and_its_log_are_left(plan_path: Path) -> None:
    assert sorted(path.name for path in plan_path.parent.iterdir()) == [
        "detector.json",
        "detector.log",
        "detector.plan",
    ]


def test_a_plan_of_another_manifest_is_refused(copied: Path) -> None:
    content = bytearray(copied.read_bytes())
    content[len(content) // 2] ^= 1
    copied.write_bytes(content)
    with pytest.raises(ExportError, match=r"is not the plan that detector\.json speaks of\n  fix: make engines"):
        read_manifest(copied)


def test_a_cut_plan_or_a_missing_one_is_refused(copied: Path) -> None:
    copied.write_bytes(copied.read_bytes()[:-1])
    with pytest.raises(ExportError, match="is not the plan"):
        read_manifest(copied)
    copied.unlink()
    with pytest.raises(ExportError, match=r"detector\.plan does not exist\n  fix: make engines PROFILE=gpu-fp16 SM=89"):
        read_manifest(copied)


@pytest.mark.parametrize("text", ["", "{}", '{"inputs": []}', "[1]"])
def test_a_damaged_manifest_is_refused_with_its_path(copied: Path, text: str) -> None:
    copied.with_suffix(".json").write_text(text, encoding="utf-8")
    with pytest.raises(ExportError, match=r"detector\.json cannot be read"):
        read_manifest(copied)


def test_a_plan_loads_where_it_was_compiled_for_and_nowhere_else(manifest: PlanManifest, flavour: Flavour) -> None:
    check_plan(manifest, "tensorrt-rtx", flavour.version, 89)
    with pytest.raises(
        ExportError, match=r"compiled by tensorrt-rtx \S+, here is tensorrt 10\.9\.0(.|\n)*make engines"
    ):
        check_plan(manifest, "tensorrt", "10.9.0", 89)
    with pytest.raises(ExportError, match=r"here is tensorrt-rtx 1\.6\.0\n  fix: rebuild it with tensorrt-rtx 1\.6\.0"):
        check_plan(manifest, "tensorrt-rtx", "1.6.0", 89)
    with pytest.raises(ExportError, match=r"has SM=120\n  fix: rebuild it: make engines PROFILE=gpu-fp16 SM=120"):
        check_plan(manifest, "tensorrt-rtx", flavour.version, 120)


def test_a_plan_is_current_until_anything_that_it_was_made_from_changes(
    copied: Path, small_detector: Path, flavour: Flavour, tmp_path: Path
) -> None:
    settings = make_settings(tmp_path)
    assert current_manifest(small_detector, copied, settings, flavour) == read_manifest(copied)
    other_graph = tmp_path / "other.onnx"
    other_graph.write_bytes(small_detector.read_bytes() + b"\x00")
    newer = replace(flavour, version="1.8.0")
    more = make_settings(tmp_path, resolutions=((64, 96),))
    assert current_manifest(other_graph, copied, settings, flavour) is None
    assert current_manifest(small_detector, copied, settings, newer) is None
    assert current_manifest(small_detector, copied, more, flavour) is None
    assert current_manifest(small_detector, copied, make_settings(tmp_path, capability=80), flavour) is None
    assert current_manifest(small_detector, copied, make_settings(tmp_path, workspace_bytes=2 << 30), flavour) is None
    copied.unlink()
    assert current_manifest(small_detector, copied, settings, flavour) is None


def test_a_missing_graph_is_refused_before_anything_is_written(flavour: Flavour, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"nowhere\.onnx does not exist\n  fix: run the stages before"):
        onnx_to_plan(tmp_path / "nowhere.onnx", tmp_path / "engine" / "a.plan", make_settings(tmp_path), flavour)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_parser_comes_out_of_the_process_and_the_old_plan_stays(
    copied: Path, flavour: Flavour, tmp_path: Path
) -> None:
    graph = write_graph(tmp_path / "a.onnx", [node("Unique", "x", "y")], y_axes=["n"])
    before = read_manifest(copied)
    with pytest.raises(ExportError, match=r"node 'layer/Unique', operator Unique(.|\n)*fix: "):
        onnx_to_plan(graph, copied, make_settings(tmp_path / "timings"), flavour)
    assert read_manifest(copied) == before
    assert "Unique" in copied.with_suffix(".log").read_text(encoding="utf-8")
    assert not list(tmp_path.glob(".*"))


def test_turing_is_refused_for_fp32_before_the_compiler_works_with_the_node_and_a_way_out(
    small_detector: Path, flavour: Flavour, tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError, match=r"(?s)cannot compile 'text/MatMul' for SM=75.*FP32.*fix: choose precision fp16"
    ):
        onnx_to_plan(small_detector, tmp_path / "sm75" / "a.plan", make_settings(tmp_path, capability=75), flavour)


def test_what_the_compiler_refuses_comes_out_with_its_reason(
    small_detector: Path, flavour: Flavour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilation, "check_products", lambda *_: None)  # or it would be refused before
    job = CompileJob(
        onnx_path=small_detector,
        plan_path=tmp_path / "a.plan",
        log_path=tmp_path / "a.log",
        flavour_name=flavour.name,
        settings=make_settings(tmp_path, capability=75),
    )
    with pytest.raises(ExportError, match=r"cannot compile \S+detector\.onnx for SM=75: .*FP32 GEMM is not supported"):
        compile_plan(job)
    assert not job.plan_path.exists()


def test_a_workspace_too_small_for_the_largest_batch_is_an_error_that_names_the_setting(
    small_detector: Path, flavour: Flavour, tmp_path: Path
) -> None:
    settings = make_settings(tmp_path, resolutions=((2048, 2048),), workspace_bytes=1 << 20)
    with pytest.raises(ExportError, match=r"workspace limit(.|\n)*fix: give it a workspace above 1048576 bytes"):
        onnx_to_plan(small_detector, tmp_path / "a.plan", settings, flavour)


def test_turing_takes_fp16(flavour: Flavour, tmp_path: Path) -> None:
    half = {"x_type": TensorProto.FLOAT16, "y_type": TensorProto.FLOAT16}
    graph = write_graph(tmp_path / "a.onnx", [node("MatMul", "x w", "y")], w=np.ones((8, 8), np.float16), **half)
    onnx_to_plan(graph, tmp_path / "a.plan", make_settings(tmp_path, capability=75), flavour)


def test_fp32_is_not_rounded_to_tf32_and_the_workspace_is_limited(flavour: Flavour, settings: PlanSettings) -> None:
    trt = flavour.module
    builder = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))
    assert builder.create_builder_config().get_flag(trt.BuilderFlag.TF32), "the default has changed: drop our line"
    config = configure(flavour, builder, settings, [])
    assert not config.get_flag(trt.BuilderFlag.TF32)
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == settings.workspace_bytes
    assert config.get_compute_capability(0) == trt.ComputeCapability.SM89


def test_a_workspace_too_small_for_any_kernel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the workspace is 4 bytes"):
        make_settings(tmp_path, workspace_bytes=4)


@pytest.fixture
def settings(tmp_path: Path) -> PlanSettings:
    return make_settings(tmp_path)
