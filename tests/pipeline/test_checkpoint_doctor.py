"""`gdino-build doctor-checkpoint` says what a file is, and exits with 0 only if it can be built."""

import os
import sys
from argparse import Namespace
from pathlib import Path
from unittest.mock import patch

import pytest
import safetensors.torch
import torch
from torch import Tensor

from gdino_build.cli import main
from tests.pipeline.checkpoint_files import save_all


def doctor(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    with patch.object(sys, "argv", ["gdino-build", "doctor-checkpoint", *map(str, arguments)]):
        code = main()
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def save(path: Path, state: dict[str, Tensor]) -> Path:
    safetensors.torch.save_file(state, path)
    return path


def test_every_format_is_described_and_can_be_built(
    tmp_path: Path, demo_state: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    for path in save_all(demo_state, tmp_path):
        code, out, err = doctor(capsys, path)
        assert code == 0, err
        assert 'fits     strictly: architecture = "demo" in [model] of a profile' in out
        assert "model    339 tensors of 5,436,563 parameters" in out
        assert f"file     {path}" in out


def test_what_is_beside_the_weights_and_what_is_dropped_is_told(
    tmp_path: Path, demo_state: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    save_all(demo_state, tmp_path)
    _, out, _ = doctor(capsys, tmp_path / "open_groundingdino.pth")
    assert "format   zip pickle, " in out
    assert "beside   optimizer, lr_scheduler, epoch 14, args\n" in out
    _, out, _ = doctor(capsys, tmp_path / "official.pth")
    assert "names    official, with the prefix module., which is dropped\n" in out
    assert "label_enc.weight: the original reads it in training alone" in out
    assert "bert.pooler.dense.bias: the original never reads it" in out
    _, out, _ = doctor(capsys, tmp_path / "hugging_face_5.23.0_save_pretrained")
    assert "names    Hugging Face's\n" in out
    assert "dropped  model.backbone.conv_encoder.model.swin.layernorm.* (2 tensors): transformers 5 creates it" in out


def test_the_sizes_are_told_and_what_shapes_cannot_tell(
    tmp_path: Path, demo_state: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = doctor(capsys, save(tmp_path / "weights.safetensors", demo_state))
    assert "Swin: width 32, depths 1 1 2 1, heads 1 2 4 8, window 7\n" in out
    assert "BERT: width 64, 2 layers, FFN 256, 30522 words, 512 positions\n" in out
    assert "detector: width 128, 2 + 3 layers, FFN 256, 60 queries, 4 levels\n" in out
    assert "assumed  4 heads and 4 points (shapes tell the product), 2 heads in BERT\n" in out


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_file_in_half_precision_can_be_built_and_the_change_is_told(
    tmp_path: Path, demo_state: dict[str, Tensor], capsys: pytest.CaptureFixture[str], dtype: torch.dtype
) -> None:
    half = {name: value.to(dtype) for name, value in demo_state.items()}
    code, out, _ = doctor(capsys, save(tmp_path / "weights.safetensors", half))
    assert code == 0
    assert f"dtypes   339 {str(dtype).removeprefix('torch.')} (which become float32)\n" in out


def test_a_configuration_that_no_profile_names_is_built_with_its_own_file(
    tmp_path: Path, demo_state: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    fewer = demo_state | {"transformer.tgt_embed.weight": demo_state["transformer.tgt_embed.weight"][:50].clone()}
    path = save(tmp_path / "weights.safetensors", fewer)
    code, out, _ = doctor(capsys, path)
    assert code == 0
    assert "50 queries" in out
    assert "fits     strictly, with these sizes; [model] of a profile wants config = its configuration file" in out
    code, _, err = doctor(capsys, path, "--config", "demo")
    assert code == 1
    assert "its shapes are those of another configuration: num_queries 50, not 60" in err


def test_the_wrong_variant_is_refused_with_the_right_one(
    tmp_path: Path, demo_state: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "weights.safetensors", demo_state)
    code, out, err = doctor(capsys, path, "--config", "swint-ogc")
    assert code == 1
    assert "fits" not in out
    assert "checkpoint does not fit architecture swint-ogc: its shapes are those of demo\n" in err
    assert doctor(capsys, path, "--config", "demo")[0] == 0


def test_a_name_that_is_no_configuration_is_answered_with_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = doctor(capsys, tmp_path / "weights.pth", "--config", "swin-t")
    assert code == 1
    assert "there is no architecture 'swin-t'\n  fix: choose one of swint-ogc, swinb-cogcoor, demo, or a .py" in err


def test_numbers_that_are_none_are_told_after_the_table(
    tmp_path: Path, demo_state: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = demo_state | {
        name: torch.full_like(value, torch.nan) for name, value in demo_state.items() if name.startswith("bert.")
    }
    code, out, err = doctor(capsys, save(tmp_path / "weights.safetensors", broken))
    assert code == 1
    assert "tensors  339 of" in out
    assert "NaN or infinity, as training leaves them that went wrong, in:\n  bert.* (" in err


def test_a_checkpoint_of_something_else_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = doctor(capsys, save(tmp_path / "weights.safetensors", {"conv.weight": torch.zeros(2, 3)}))
    assert code == 1
    assert "names    none of GroundingDINO's\n" in out
    assert "sizes    unknown: tensors that tell them are not there\n" in out
    assert "none of its tensors has a name of GroundingDINO's" in err
    code, out, err = doctor(capsys, save(tmp_path / "weights.safetensors", {"query_embed.weight": torch.zeros(2, 3)}))
    assert code == 1
    assert "names    those of DETR, which knows no text\n" in out
    assert "it is one of DETR" in err


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch was-here",)


def test_a_pickle_that_runs_code_is_refused_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"a": torch.ones(1)}, "args": Namespace(hidden=Malicious())}, "weights.pth")
    code, out, err = doctor(capsys, "weights.pth")
    assert (code, out) == (1, "")
    assert "is refused, and nothing of it has run: it could run code when it is read (posix.system)" in err
    assert not Path("was-here").exists()
    torch.load("weights.pth", weights_only=False)
    assert Path("was-here").exists()  # it would have run


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = doctor(capsys, tmp_path / "no-such.pth")
    assert code == 1
    assert "no-such.pth does not exist" in err
