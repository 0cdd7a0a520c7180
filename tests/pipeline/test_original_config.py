"""The original's configuration files are read without running them, and no option is ignored that changes an answer."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gdino_build.model import ARCHITECTURES, SWINB_COGCOOR, SWINT_OGC
from gdino_build.model.config import SWIN_BACKBONES
from gdino_build.original_config import find_architecture, read_architecture, read_options
from gdino_core.errors import ConfigError

# What the original's own SLConfig reads from its two files and from the two of Open-GroundingDino.
GOLDEN: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "goldens" / "original_configs.json").read_text(encoding="utf-8")
)
SWINT = GOLDEN["GroundingDINO_SwinT_OGC.py"]


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(text, encoding="utf-8")
    return path


def lines(options: dict[str, Any]) -> str:
    return "".join(f"{name} = {value!r}\n" for name, value in options.items())


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_architecture(write(folder, text))
    assert "\n  fix: " in str(caught.value)
    return str(caught.value)


# reading


@pytest.mark.parametrize("name", GOLDEN)
def test_the_files_of_both_repositories_are_read_as_the_original_reads_them(tmp_path: Path, name: str) -> None:
    assert len(GOLDEN[name]) > 40
    assert read_options(write(tmp_path, lines(GOLDEN[name]))) == GOLDEN[name]


def test_what_a_person_writes_into_such_a_file_is_read(tmp_path: Path) -> None:
    text = """
    # a comment
a = 1e-05
b = -1  # another
c = ["x", 'y']
d = {"e": (1, None, True)}
a = 2
""".replace("    #", "#")
    assert read_options(write(tmp_path, text)) == {"a": 2, "b": -1, "c": ["x", "y"], "d": {"e": (1, None, True)}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nimport os", "mine.py, line 2 is not of the form name = literal: import os"),
        ("__import__('os').system('touch was-here')", "line 1 is not of the form name = literal: __import__('os')"),
        ("a = __import__('os').system('touch was-here')", "line 1: __import__('os').system('touch was-here') is not a"),
        ("a = [1, open('was-here', 'w')]", "line 1: [1, open('was-here', 'w')] is not a literal"),
        ('a = f\'{open("was-here", "w")}\'', "is not a literal"),
        ("a = 1\nb = a", "line 2: a is not a literal"),
        ("a = 2 * 1024", "line 1: 2 * 1024 is not a literal"),
        ("a = b = 1", "line 1 is not of the form name = literal: a = b = 1"),
        ("a, b = 1, 2", "line 1 is not of the form name = literal: a, b = (1, 2)"),
        ("a += 1", "line 1 is not of the form"),
        ("a: int = 1", "line 1 is not of the form"),
        ("a.b = 1", "line 1 is not of the form"),
        ("def f():\n    pass", "line 1 is not of the form name = literal: def f():"),
        ("if True:\n    a = 1", "line 1 is not of the form name = literal: if True:"),
        ("_base_ = ['other.py']", "line 1: _base_ takes options from other files"),
        ("a = 1\nb = ", "line 2 is not Python"),
        ("a = " + "(" * 500 + ")" * 500, "is not Python"),
        ("\0", "is not Python"),
    ],
)
def test_what_is_no_assignment_of_a_literal_is_named_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refusal(tmp_path, text)
    assert not (tmp_path / "was-here").exists()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no-such\.py cannot be read: No such file"):
        read_architecture(tmp_path / "no-such.py")


# mapping


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("GroundingDINO_SwinT_OGC.py", SWINT_OGC),
        ("GroundingDINO_SwinB_cfg.py", SWINB_COGCOOR),
        ("cfg_coco.py", SWINT_OGC),
        ("cfg_odvg.py", SWINT_OGC),
    ],
)
def test_the_files_of_both_repositories_are_of_known_architectures(
    tmp_path: Path, name: str, architecture: Any
) -> None:
    assert read_architecture(write(tmp_path, lines(GOLDEN[name]))) is architecture


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_queries": 300}, {"num_queries": 300}),
        ({"enc_layers": 3, "dec_layers": 2}, {"num_encoder_layers": 3, "num_decoder_layers": 2}),
        ({"dim_feedforward": 1024}, {"ffn_dim": 1024}),
        ({"nheads": 4}, {"num_heads": 4}),
        ({"enc_n_points": 8, "dec_n_points": 8}, {"num_points": 8}),
        ({"backbone": "swin_L_384_22k"}, {"swin": SWIN_BACKBONES["swin_L_384_22k"]}),
        ({"backbone": "swin_B_224_22k"}, {"swin": SWIN_BACKBONES["swin_B_224_22k"]}),
    ],
)
def test_each_size_reaches_the_model(tmp_path: Path, changes: dict[str, Any], expected: dict[str, Any]) -> None:
    config = read_architecture(write(tmp_path, lines(SWINT | changes)))
    assert config == replace(SWINT_OGC, name="mine", **expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("modelname", "dino"),
        ("backbone", "resnet50"),
        ("return_interm_indices", [0, 1, 2, 3]),
        ("num_feature_levels", 5),
        ("position_embedding", "learned"),
        ("pe_temperatureH", 10000),
        ("pe_temperatureW", 10000),
        ("hidden_dim", 128),
        ("query_dim", 2),
        ("pre_norm", True),
        ("transformer_activation", "gelu"),
        ("two_stage_type", "no"),
        ("two_stage_bbox_embed_share", None),
        ("dec_pred_bbox_embed_share", False),
        ("embed_init_tgt", False),
        ("max_text_len", 195),
        ("text_encoder_type", "roberta-base"),
        ("sub_sentence_present", False),
        ("use_text_enhancer", False),
        ("use_fusion_layer", False),
        ("use_text_cross_attention", False),
        ("use_text_cross_attention", 1),  # equal to True, and yet not what the original's files have
    ],
)
def test_an_option_that_export_cannot_honour_is_an_error(tmp_path: Path, name: str, value: object) -> None:
    assert name in SWINT
    message = refusal(tmp_path, lines(SWINT | {name: value}))
    assert f"mine.py: {name} is {value!r}, which this project does not implement\n  fix: it implements " in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_queries": 0}, "num_queries is 0\n  fix: write a whole number above 0"),
        ({"enc_layers": 6.0}, "enc_layers is 6.0"),
        ({"dec_layers": True}, "dec_layers is True"),
        ({"enc_n_points": 8}, "enc_n_points is 8 and dec_n_points 4\n  fix: this project implements equal numbers"),
        ({"nheads": 7}, "nheads 7 does not divide hidden_dim 256 and dim_feedforward 2048"),
        ({"nheads": 1}, "nheads 1 does not divide"),
    ],
)
def test_sizes_that_make_no_model_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert message in refusal(tmp_path, lines(SWINT | changes))


def test_options_of_training_are_of_no_account(tmp_path: Path) -> None:
    changes = {"lr": 3.0, "dropout": 0.5, "batch_size": 7, "use_checkpoint": False, "num_select": 10}
    assert read_architecture(write(tmp_path, lines(GOLDEN["cfg_odvg.py"] | changes))) is SWINT_OGC


def test_an_unknown_option_is_an_error_with_the_name_that_was_meant(tmp_path: Path) -> None:
    message = refusal(tmp_path, lines(SWINT | {"num_querys": 300}))
    assert "has the unknown option num_querys = 300\n  fix: is it num_queries?" in message
    assert "remove it if it changes nothing" in refusal(tmp_path, lines(SWINT | {"zzz": 1}))


@pytest.mark.parametrize("name", ["backbone", "nheads", "two_stage_type", "sub_sentence_present"])
def test_an_option_that_is_missing_is_not_guessed(tmp_path: Path, name: str) -> None:
    options = {key: value for key, value in SWINT.items() if key != name}
    assert f"mine.py lacks {name}\n" in refusal(tmp_path, lines(options))


def test_bert_on_the_disk_of_whoever_trained_is_bert(tmp_path: Path) -> None:
    options = SWINT | {"text_encoder_type": "/home/somebody/weights/bert-base-uncased"}
    assert read_architecture(write(tmp_path, lines(options))) is SWINT_OGC


def test_an_architecture_is_found_by_name_and_by_file(tmp_path: Path) -> None:
    for name, config in ARCHITECTURES.items():
        assert find_architecture(name) is config
    assert find_architecture(str(write(tmp_path, lines(SWINT)))) is SWINT_OGC
    with pytest.raises(ConfigError, match="there is no architecture 'swin-t'"):
        find_architecture("swin-t")
