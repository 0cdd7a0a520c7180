from pathlib import Path

import pytest

from gdino_build.assemble import MODELS
from gdino_build.engine import EngineInterface, EngineTensor
from gdino_build.triton_config import check_ensemble, fit_to_engine, read_config
from gdino_core.errors import ConfigError
from tests.serve.conftest import SOURCES

TEXT = EngineInterface(
    inputs={name: EngineTensor(type_name="i32", dims=(-1,)) for name in ("INPUT_IDS", "POSITION_IDS", "PHRASE_IDS")},
    outputs={"TEXT_FEATURES": EngineTensor(type_name="f32", dims=(-1, 256))},
)


def test_sources_are_valid_and_fit_together() -> None:
    configs = {name: read_config(SOURCES / name / "config.pbtxt") for name in MODELS}
    check_ensemble(configs["grounding_dino"], configs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name: "model" bakend: "python"', "is not a Triton model configuration: .* no field named .bakend"),
        ('name: "model" max_batch_size: "8"', "is not a Triton model configuration"),
        ('name: "other"', "names the model 'other'\n  fix: write name: \"model\""),
    ],
)
def test_config_that_triton_would_refuse_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "model" / "config.pbtxt"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(path)


def test_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.pbtxt cannot be read"):
        read_config(tmp_path / "config.pbtxt")


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("INPUT_IDS", EngineTensor(type_name="i64", dims=(-1,)), "TYPE_INT32 .-1. in config.pbtxt, TYPE_INT64 .-1."),
        ("INPUT_IDS", EngineTensor(type_name="i32", dims=(-1, 2)), "input INPUT_IDS of text_encoder"),
        ("TOKEN_TYPES", EngineTensor(type_name="i32", dims=(-1,)), "has the inputs INPUT_IDS, .* its engine .*TOKEN"),
    ],
)
def test_engine_with_other_inputs_than_the_contract_is_refused(name: str, tensor: EngineTensor, message: str) -> None:
    config = read_config(SOURCES / "text_encoder" / "config.pbtxt")
    with pytest.raises(ConfigError, match=message):
        fit_to_engine(config, EngineInterface(inputs={**TEXT.inputs, name: tensor}, outputs=TEXT.outputs))


def _edit_ensemble(old: str, new: str, tmp_path: Path) -> None:
    text = (SOURCES / "grounding_dino" / "config.pbtxt").read_text()
    assert old in text
    path = tmp_path / "grounding_dino" / "config.pbtxt"
    path.parent.mkdir()
    path.write_text(text.replace(old, new, 1))
    configs = {name: read_config(SOURCES / name / "config.pbtxt") for name in MODELS}
    check_ensemble(read_config(path), configs)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('model_name: "detector"', 'model_name: "detektor"', "has the step 'detektor', which is no model"),
        ("max_batch_size: 1 ", "max_batch_size: 2 ", "step preprocess takes batches of 1"),
        ('input_map { key: "VALID_HW"      value: "VALID_HW" }', "", "input VALID_HW of detector gets nothing"),
        ('key: "LOGITS"       value: "LOGITS"', 'key: "LOGIT" value: "LOGITS"', "LOGITS is no output of detector"),
        ('key: "BOXES"         value: "BOXES"', 'key: "BOXES" value: "PIXELS"', "PIXELS is made twice"),
        ('key: "REQUEST"        value: "REQUEST"', 'key: "REQUEST" value: "SIZE"', "comes from no step before it"),
        ('key: "REQUEST"        value: "REQUEST"', 'key: "HW" value: "REQUEST"', "postprocess has no input HW"),
        (
            'key: "REQUEST"        value: "REQUEST"',
            'key: "REQUEST" value: "LOGITS"',
            "input REQUEST of postprocess is",
        ),
        (
            '"SCORES"       data_type: TYPE_FP32 ',
            '"SCORES" data_type: TYPE_FP16 ',
            "output SCORES of grounding_dino is",
        ),
        (
            '"PROMPT"          data_type: TYPE_STRING  dims: [ -1 ]',
            '"PROMPT" data_type: TYPE_STRING dims: [ -1 ] optional: true',
            "is required, its source PROMPT is optional",
        ),
    ],
)
def test_ensemble_whose_steps_do_not_fit_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        _edit_ensemble(old, new, tmp_path)
