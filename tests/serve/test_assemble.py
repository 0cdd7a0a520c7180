import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from gdino_build.assemble import MODELS, STEPS, RepositoryPlan, assemble_repository
from gdino_build.engine import onnx_to_openvino
from gdino_build.serving import ServingSettings
from gdino_build.triton_config import read_config
from gdino_core import contract
from gdino_core.errors import ConfigError
from gdino_core.settings import PreprocessSettings
from tests.serve import standin
from tests.serve.conftest import SOURCES


def test_every_model_carries_the_contract_version(repository: Path) -> None:
    for name in MODELS:
        config = read_config(repository / name / "config.pbtxt")
        assert config.parameters["contract_version"].string_value == str(contract.CONTRACT_VERSION)


def test_preprocessing_settings_reach_both_models_that_read_them(repository: Path, plan: RepositoryPlan) -> None:
    for name in ("preprocess", "postprocess"):
        parameters = read_config(repository / name / "config.pbtxt").parameters
        strings = {key: value.string_value for key, value in parameters.items()}
        assert PreprocessSettings.from_parameters(strings) == plan.preprocess


def test_sizes_that_the_engine_fixes_are_written_into_config(repository: Path) -> None:
    detector = read_config(repository / "detector" / "config.pbtxt")
    dims = {tensor.name: list(tensor.dims) for tensor in (*detector.input, *detector.output)}
    assert dims["TEXT_FEATURES"] == [-1, standin.TEXT_DIM]
    assert dims["LOGITS"] == [standin.NUM_QUERIES, -1]
    assert dims["PIXELS"] == [3, -1, -1]


def test_every_step_has_a_bounded_queue_with_two_priorities(repository: Path, plan: RepositoryPlan) -> None:
    for name in STEPS:
        batching = read_config(repository / name / "config.pbtxt").dynamic_batching
        assert batching.priority_levels == contract.PRIORITY_BULK
        assert batching.default_priority_level == contract.PRIORITY_INTERACTIVE
        assert batching.default_queue_policy.max_queue_size == plan.serving.max_queue_size
        assert batching.default_queue_policy.default_timeout_microseconds == plan.serving.queue_timeout_ms * 1000
        assert batching.default_queue_policy.allow_timeout_override


def test_a_long_list_of_labels_may_have_more_rows_than_a_batch(plan: RepositoryPlan, tmp_path: Path) -> None:
    for max_prompts, rows in ((5, 8), (40, 40)):
        preprocess = dataclasses.replace(plan.preprocess, max_prompts=max_prompts)
        repository = assemble_repository(dataclasses.replace(plan, preprocess=preprocess), tmp_path / "rows").parent
        for name, expected in (("text_encoder", rows), ("detector", rows), ("postprocess", max_prompts)):
            assert read_config(repository / name / "config.pbtxt").max_batch_size == expected


def test_every_bucket_is_warmed_up_unless_the_profile_says_no(plan: RepositoryPlan, tmp_path: Path) -> None:
    repository = assemble_repository(plan, tmp_path / "warm").parent
    samples = read_config(repository / "detector" / "config.pbtxt").model_warmup
    shapes = {tuple(sample.inputs["PIXELS"].dims) for sample in samples}
    assert shapes == {(3, *bucket) for bucket in plan.preprocess.resolution_buckets}
    for sample in samples:
        size = (repository / "detector" / "warmup" / sample.inputs["VALID_HW"].input_data_file).read_bytes()
        assert tuple(np.frombuffer(size, np.int32)) == tuple(sample.inputs["PIXELS"].dims[1:])
    most = max(samples, key=lambda sample: sample.batch_size)
    assert most.batch_size == plan.engines.largest_batch
    assert list(most.inputs["PIXELS"].dims) == [3, 160, 576]
    assert most.inputs["PHRASE_IDS"].dims[0] == plan.preprocess.text_buckets[-1]
    texts = read_config(repository / "text_encoder" / "config.pbtxt").model_warmup
    assert [sample.inputs["INPUT_IDS"].dims[0] for sample in texts] == list(plan.preprocess.text_buckets)
    cold = dataclasses.replace(plan, serving=ServingSettings(warm_up=False))
    repository = assemble_repository(cold, tmp_path / "cold").parent
    assert not read_config(repository / "detector" / "config.pbtxt").model_warmup
    assert not (repository / "detector" / "warmup").exists()


def test_manifest_tells_the_hash_of_every_file_and_what_they_were_made_from(repository: Path) -> None:
    manifest = json.loads((repository / "manifest.json").read_text())
    files = {path for path in repository.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {repository / name for name in manifest["files"]} == files - {repository / "manifest.json"}
    for name, entry in manifest["files"].items():
        content = (repository / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert manifest["contract_version"] == contract.CONTRACT_VERSION
    assert manifest["profile"] == {"name": "stand-in"}
    assert manifest["weights"]["sha256"] == "0" * 64
    assert manifest["engines"].keys() == {"text_encoder", "detector"}
    assert manifest["versions"]["openvino"]


def test_ensemble_keeps_its_empty_version_folder(repository: Path) -> None:
    assert (repository / "grounding_dino" / "1").is_dir()


def test_assembling_again_replaces_the_whole_repository(plan: RepositoryPlan, tmp_path: Path) -> None:
    assemble_repository(plan, tmp_path / "repository")
    (tmp_path / "repository" / "left_over").mkdir()
    assemble_repository(plan, tmp_path / "repository")
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]
    assert not (tmp_path / "repository" / "left_over").exists()


def test_failed_assembly_leaves_the_old_repository_in_place(plan: RepositoryPlan, tmp_path: Path) -> None:
    before = assemble_repository(plan, tmp_path / "repository").read_text()
    with pytest.raises(ConfigError):
        assemble_repository(dataclasses.replace(plan, sources=tmp_path / "none"), tmp_path / "repository")
    assert (tmp_path / "repository" / "manifest.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


def test_folder_of_someone_else_is_not_overwritten(plan: RepositoryPlan, tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "precious").touch()
    with pytest.raises(ConfigError, match="was not written by this program"):
        assemble_repository(plan, tmp_path / "repository")
    assert (tmp_path / "repository" / "precious").exists()


def test_sources_hold_no_build_artefacts_and_are_not_changed(plan: RepositoryPlan, tmp_path: Path) -> None:
    assemble_repository(plan, tmp_path / "repository")
    assert not [path for path in SOURCES.rglob("*") if path.suffix in (".xml", ".bin", ".onnx")]


def test_engines_of_different_checkpoints_are_not_put_together(
    plan: RepositoryPlan, engines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(engines, tmp_path / "engines")
    monkeypatch.setattr(standin, "TEXT_DIM", 16)
    standin.write_text_encoder(tmp_path / "text.onnx")
    onnx_to_openvino(tmp_path / "text.onnx", tmp_path / "engines" / "text_encoder.xml")
    mixed = dataclasses.replace(plan, engines=dataclasses.replace(plan.engines, folder=tmp_path / "engines"))
    with pytest.raises(ConfigError, match=r"TEXT_FEATURES of detector is TYPE_FP32 \[-1, 8\], .* \[-1, 16\]"):
        assemble_repository(mixed, tmp_path / "repository")
