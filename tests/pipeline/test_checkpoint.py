"""Checkpoints are read safely, brought to official names, and refused with a sentence that helps."""

import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from gdino_build.checkpoint import canonical_state_dict, load_model, read_state_dict
from gdino_build.model import DEMO
from gdino_core.errors import CheckpointError

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b.bias": torch.ones(4)}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


# reading


@pytest.mark.parametrize("content", [STATE, {"model": STATE}, {"model": STATE, "epoch": 3, "best": {"ap": 0.5}}])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pth_file_is_read_with_and_without_what_training_adds(tmp_path: Path, content: object, zipped: bool) -> None:
    torch.save(content, tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)
    assert_equal(read_state_dict(tmp_path / "weights.pth"), STATE)


def test_a_safetensors_file_is_read(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "weights.safetensors")
    assert_equal(read_state_dict(tmp_path / "weights.safetensors"), STATE)


def test_a_missing_file_is_named_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no-such\.pth does not exist") as caught:
        read_state_dict(tmp_path / "no-such.pth")
    assert "RANDOM_WEIGHTS=1" in str(caught.value)


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.02, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["zip.pth", "legacy.pth", "weights.safetensors"])
def test_a_truncated_file_is_refused_with_its_size(tmp_path: Path, kind: str, kept: float) -> None:
    path, state = tmp_path / kind, {"a": torch.zeros(2000)}
    if kind.endswith("safetensors"):
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip.pth")
    whole = path.read_bytes()
    size = int(kept * len(whole))
    path.write_bytes(whole[:size])
    with pytest.raises(CheckpointError, match=rf"{kind} \({size:,} bytes\)") as caught:
        read_state_dict(path)
    assert "download it again" in str(caught.value)


def test_a_web_page_under_the_name_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_text("<html>404 not found</html>", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"weights\.pth \(26 bytes\) is not one"):
        read_state_dict(tmp_path / "weights.pth")


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_pickle_that_runs_code_is_refused_and_its_code_does_not_run(tmp_path: Path) -> None:
    target = tmp_path / "was-here"
    torch.save({"model": STATE, "extra": Malicious(target)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="could run code") as caught:
        read_state_dict(tmp_path / "weights.pth")
    assert not target.exists()
    assert "weights_only" not in str(caught.value)  # torch advises to switch its check off
    torch.load(tmp_path / "weights.pth", weights_only=False)
    assert target.exists()  # it would have run


@pytest.mark.parametrize("content", [[1, 2], {"model": [1]}, {"a": 1}, {"model": {"a": "text"}}])
def test_a_file_of_something_else_than_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="is not a dictionary of tensors"):
        read_state_dict(tmp_path / "weights.pth")


# names


def test_prefixes_of_training_are_dropped() -> None:
    assert_equal(canonical_state_dict({f"module.{name}": value for name, value in STATE.items()}), STATE)


def test_half_precision_becomes_single_and_integers_stay() -> None:
    canonical = canonical_state_dict({"a": torch.tensor([0.5]).half(), "b": torch.tensor([1, 2])})
    assert canonical["a"].dtype == torch.float32
    assert canonical["a"].item() == 0.5
    assert canonical["b"].dtype == torch.int64


@pytest.mark.parametrize("owner", ["", "transformer.decoder.", "module.", "module.transformer.decoder."])
def test_the_shared_box_head_is_found_under_each_of_its_official_names(owner: str) -> None:
    head = {f"{owner}bbox_embed.{layer}.layers.0.bias": torch.ones(4) for layer in range(6)}
    assert_equal(canonical_state_dict(head), {"bbox_embed.0.layers.0.bias": torch.ones(4)})


@pytest.mark.parametrize(
    "other", ["bbox_embed.1", "transformer.decoder.bbox_embed.0", "transformer.decoder.bbox_embed.5"]
)
def test_box_heads_that_differ_are_refused(other: str) -> None:
    heads = {"bbox_embed.0.layers.0.bias": torch.ones(4), f"{other}.layers.0.bias": torch.zeros(4)}
    with pytest.raises(CheckpointError, match=r"heads of the decoder layers differ in bbox_embed\.0\.layers\.0\.bias"):
        canonical_state_dict(heads)


def test_equal_box_heads_of_other_precision_are_one() -> None:
    heads = {"bbox_embed.0.x": torch.tensor([0.5]), "bbox_embed.1.x": torch.tensor([0.5]).half()}
    assert_equal(canonical_state_dict(heads), {"bbox_embed.0.x": torch.tensor([0.5])})


# loading


def test_loaded_weights_are_the_models_own(demo_state: dict[str, Tensor]) -> None:
    model = load_model(DEMO, demo_state)
    assert_equal(dict(model.state_dict()), demo_state)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_what_is_missing_unexpected_and_misshapen_is_named(demo_state: dict[str, Tensor]) -> None:
    state = dict(demo_state)
    del state["feat_map.bias"]
    state["stranger"] = torch.zeros(2)
    state["transformer.level_embed"] = torch.zeros(5, DEMO.hidden_dim)
    with pytest.raises(CheckpointError) as caught:
        load_model(DEMO, state)
    message = str(caught.value)
    assert "does not fit architecture demo" in message
    assert "missing feat_map.bias (128,)" in message
    assert "unexpected stranger (2,)" in message
    assert "transformer.level_embed is (5, 128), expected (4, 128)" in message


def test_a_checkpoint_of_another_model_is_not_answered_with_a_thousand_lines(demo_state: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=rf"and {len(demo_state) - 10} more"):
        load_model(DEMO, {})
