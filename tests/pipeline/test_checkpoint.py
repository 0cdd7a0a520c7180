"""Checkpoints are read safely, brought to official names, and refused with a sentence that helps."""

import io
import json
import os
import pickle
import tarfile
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from gdino_build.checkpoint import canonical_state_dict, load_model, read_state_dict
from gdino_build.checkpoint.architecture import guess_architecture
from gdino_build.checkpoint.folding import fold
from gdino_build.checkpoint.loading import module_shapes
from gdino_build.model import DEMO, SWINB_COGCOOR, SWINT_OGC, ModelConfig
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


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["zip.pth", "weights.safetensors"])
def test_a_truncated_file_is_said_to_be_cut_short(tmp_path: Path, kind: str, kept: float) -> None:
    path, state = tmp_path / kind, {"a": torch.zeros(2000)}
    if kind == "zip.pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(CheckpointError, match="is cut short: it"):
        read_state_dict(path)


def tar_archive() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("sys_info"))
    return content.getvalue()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (b"", "empty"),
        (b"<html>404 not found</html>", "a web page"),
        (b"\n<!DOCTYPE html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "a pointer of Git LFS, for which `git lfs pull`"),
        (tar_archive(), "a tar archive"),
        (b"GIF89a", "of no known format, and starts with b'GIF89a'"),
    ],
)
def test_what_is_no_checkpoint_is_told_by_its_content(tmp_path: Path, name: str, content: bytes, seen: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name} \({len(content):,} bytes\) is not one: it is {seen}"):
        read_state_dict(tmp_path / name)


@pytest.mark.parametrize("header", [100, 128, 200, 256 + 128])
def test_a_safetensors_header_of_any_length_is_not_taken_for_a_pickle(tmp_path: Path, header: int) -> None:
    # Its length comes first, and b"\x80" (128) is how a pickle begins. Written by hand: safetensors rounds the length.
    text = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).ljust(header).encode()
    (tmp_path / "weights").write_bytes(header.to_bytes(8, "little") + text + np.float32(3).tobytes())
    assert_equal(read_state_dict(tmp_path / "weights"), {"a": torch.tensor([3.0])})


def test_a_folder_without_a_checkpoint_is_named_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no model\.safetensors and no .*pytorch_model\.bin"):
        read_state_dict(tmp_path)


def test_a_torchscript_program_is_named(tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "weights.pth")
        with pytest.raises(CheckpointError, match="it is a TorchScript program, not a checkpoint"):
            read_state_dict(tmp_path / "weights.pth")


def test_one_number_does_not_pose_as_a_million(tmp_path: Path) -> None:
    # A few bytes in the file; made half precision, so that bringing it to single would fill 4 TB.
    torch.save({"a": torch.zeros(1).half().expand(10**6, 10**6)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"a of \(1000000, 1000000\) is larger than the file"):
        read_state_dict(tmp_path / "weights.pth")


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_pickle_that_runs_code_is_refused_and_its_code_does_not_run(tmp_path: Path) -> None:
    target = tmp_path / "was-here"
    torch.save({"model": STATE, "extra": Malicious(target)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"nothing of it has run: it could run code .*\(posix\.mkdir\)") as caught:
        read_state_dict(tmp_path / "weights.pth")
    assert not target.exists()
    assert "weights_only" not in str(caught.value)  # torch advises to switch its check off
    torch.load(tmp_path / "weights.pth", weights_only=False)
    assert target.exists()  # it would have run


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False, None])
def test_no_kind_of_pickle_runs_code(tmp_path: Path, protocol: int, zipped: bool | None) -> None:
    path, target = tmp_path / "weights.pth", tmp_path / "was-here"
    if zipped is None:
        path.write_bytes(pickle.dumps(Malicious(target), protocol))
    else:
        torch.save(Malicious(target), path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="is refused, and nothing of it has run"):
        read_state_dict(path)
    assert not target.exists()


@pytest.mark.parametrize("key", ["model", "state_dict", "model_ema", "ema_model"])
def test_weights_are_found_under_each_name_that_training_gives_them(tmp_path: Path, key: str) -> None:
    torch.save({key: STATE, "epoch": 3}, tmp_path / "weights.pth")
    assert_equal(read_state_dict(tmp_path / "weights.pth"), STATE)


def test_the_trained_weights_count_where_averaged_ones_are_beside_them(tmp_path: Path) -> None:
    torch.save({"model_ema": {"a": torch.zeros(3)}, "model": STATE}, tmp_path / "weights.pth")
    assert_equal(read_state_dict(tmp_path / "weights.pth"), STATE)


def test_entries_that_are_no_tensors_are_named(tmp_path: Path) -> None:
    torch.save({"model": {**STATE, "epoch": 3, "note": "best"}}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"among its tensors what is none: epoch \(int\), note \(str\)"):
        read_state_dict(tmp_path / "weights.pth")


@pytest.mark.parametrize("content", [[1, 2], {"model": [1]}, {"a": 1}, {"model": {"a": "text"}}, {}, {"model": {}}])
def test_a_file_of_something_else_than_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="is not a dictionary of tensors"):
        read_state_dict(tmp_path / "weights.pth")


# names


@pytest.mark.parametrize(
    "prefixed", ["module.{}", "_orig_mod.{}", "module._orig_mod.{}", "_orig_mod.module.{}", "module.module.{}"]
)
def test_prefixes_of_training_are_dropped(prefixed: str) -> None:
    assert_equal(canonical_state_dict({prefixed.format(name): value for name, value in STATE.items()}), STATE)


def test_a_part_that_was_compiled_alone_is_found() -> None:
    assert_equal(canonical_state_dict({"backbone._orig_mod.a": torch.ones(1)}), {"backbone.a": torch.ones(1)})


def test_a_name_that_only_looks_like_a_prefix_stays() -> None:
    assert canonical_state_dict({"a.module.b": torch.ones(1), "modules.c": torch.ones(1)}).keys() == {
        "a.module.b",
        "modules.c",
    }


def test_two_models_in_one_state_dict_are_not_mixed_up() -> None:
    with pytest.raises(CheckpointError, match=r"two tensors are named a when their prefixes are dropped"):
        canonical_state_dict({"module.a": torch.ones(1), "a": torch.zeros(1)})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_becomes_single_and_integers_stay(dtype: torch.dtype) -> None:
    canonical = canonical_state_dict({"a": torch.tensor([0.5], dtype=dtype), "b": torch.tensor([1, 2])})
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


@pytest.mark.parametrize("other", [torch.zeros(5), torch.zeros(4, dtype=torch.int32)])
def test_box_heads_that_cannot_be_compared_differ(other: Tensor) -> None:
    with pytest.raises(CheckpointError, match="box heads of the decoder layers differ"):
        canonical_state_dict({"bbox_embed.0.x": torch.zeros(4), "bbox_embed.1.x": other})


def test_a_broken_box_head_is_not_taken_for_several() -> None:
    broken = {f"bbox_embed.{layer}.x": torch.tensor([torch.nan, torch.inf]) for layer in range(2)}
    assert canonical_state_dict(broken).keys() == {"bbox_embed.0.x"}


def test_equal_box_heads_of_other_precision_are_one() -> None:
    heads = {"bbox_embed.0.x": torch.tensor([0.5]), "bbox_embed.1.x": torch.tensor([0.5]).half()}
    assert_equal(canonical_state_dict(heads), {"bbox_embed.0.x": torch.tensor([0.5])})


# loading


def test_loaded_weights_are_the_models_own(demo_state: dict[str, Tensor]) -> None:
    model = load_model(DEMO, demo_state)
    assert_equal(dict(model.state_dict()), demo_state)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def refusal(config: ModelConfig, state: Mapping[str, Tensor]) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(config, state)
    return str(caught.value)


def test_what_is_missing_unexpected_and_misshapen_is_named_all_of_it(demo_state: dict[str, Tensor]) -> None:
    state = dict(demo_state)
    del state["feat_map.bias"]
    state["stranger"] = torch.zeros(2)
    state["transformer.level_embed"] = torch.zeros(5, DEMO.hidden_dim)
    assert refusal(DEMO, state).splitlines() == [
        "checkpoint does not fit architecture demo: it is of another configuration or was changed",
        "  missing feat_map.bias (128,)",
        "  unexpected stranger (2,)",
        "  misshapen transformer.level_embed is (5, 128), expected (4, 128)",
        "  fix: check [model] in the profile, and that the file is the one you mean",
    ]


def test_a_part_of_a_model_is_told_by_what_is_missing_alone(demo_state: dict[str, Tensor]) -> None:
    state = {name: value for name, value in demo_state.items() if not name.startswith("transformer.decoder.")}
    message = refusal(DEMO, state)
    assert "a part of the model is not there" in message
    assert f"missing transformer.decoder.* ({len(demo_state) - len(state)} tensors)" in message
    assert "name the folder" in message


def test_an_extra_head_is_told_by_what_is_unexpected_alone(demo_state: dict[str, Tensor]) -> None:
    head = {f"mask_head.{layer}.weight": torch.zeros(8, 8) for layer in range(5)}
    message = refusal(DEMO, demo_state | head)
    assert "it has more than GroundingDINO, such as a head for another task" in message
    assert "unexpected mask_head.* (5 tensors) (8, 8)" in message


def test_the_head_of_a_detector_without_text_does_not_hide_that_the_rest_is_groundingdino(
    demo_state: dict[str, Tensor],
) -> None:
    assert "it has more than GroundingDINO" in refusal(DEMO, demo_state | {"class_embed.0.weight": torch.zeros(2)})


def full_size_state(config: ModelConfig) -> dict[str, Tensor]:
    # Zeros that share one number: the shapes of a full-size model without its memory.
    return {name: torch.zeros(()).expand(shape) for name, shape in module_shapes(config).items()}


@pytest.mark.parametrize(
    ("found", "wanted"), [(SWINB_COGCOOR, SWINT_OGC), (SWINT_OGC, SWINB_COGCOOR), (SWINT_OGC, DEMO)]
)
def test_the_other_variant_is_recognised_and_said_in_few_lines(found: ModelConfig, wanted: ModelConfig) -> None:
    message = refusal(wanted, full_size_state(found))
    assert f"its shapes are those of {found.name}" in message
    assert f'write architecture = "{found.name}" in [model] of the profile' in message
    assert len(message.splitlines()) < 150


def test_the_other_variant_is_recognised_though_a_tensor_is_missing() -> None:
    state = full_size_state(SWINB_COGCOOR)
    del state["feat_map.bias"]
    assert "its shapes are those of swinb-cogcoor" in refusal(SWINT_OGC, state)


def test_another_configuration_is_told_by_the_sizes_that_differ() -> None:
    state = full_size_state(replace(SWINT_OGC, num_queries=300, num_decoder_layers=4))
    message = refusal(SWINT_OGC, state)
    assert "another configuration: num_decoder_layers 4, not 6; num_queries 300, not 900\n" in message
    assert "write config = " in message
    assert "\n  missing transformer.decoder.layers.{4..5}.* " in message
    assert "\n  misshapen transformer.tgt_embed.weight is (300, 256), expected (900, 256)\n" in message


@pytest.mark.parametrize("config", [SWINT_OGC, SWINB_COGCOOR, DEMO])
def test_the_sizes_of_each_known_model_are_read_off_its_shapes(config: ModelConfig) -> None:
    guess = guess_architecture(module_shapes(config))
    assert guess is not None
    assert guess.config == config


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("language_model.language_backbone.body.model.embeddings.word_embeddings.weight", "MM-GroundingDINO"),
        ("rpn.head.dyhead_tower.0.weight", "GLIP"),
        ("image_encoder.pos_embed", "Segment Anything"),
        ("class_embed.0.weight", "DINO or Deformable DETR"),
        ("query_embed.weight", "DETR"),
        ("embeddings.word_embeddings.weight", "BERT alone"),
        ("layers.0.blocks.0.attn.qkv.weight", "Swin alone"),
    ],
)
def test_a_model_that_is_taken_for_groundingdino_is_named(name: str, family: str) -> None:
    assert f"it is one of {family}" in refusal(DEMO, {name: torch.zeros(1)})


def test_mm_groundingdino_of_hugging_face_is_named(demo_state: dict[str, Tensor]) -> None:
    message = refusal(DEMO, demo_state | {"class_embed.0.bias": torch.zeros(1)})
    assert "MM-GroundingDINO as Hugging Face saves it" in message


def test_nothing_of_groundingdino_is_answered_in_one_line_not_a_thousand(demo_state: dict[str, Tensor]) -> None:
    message = refusal(DEMO, {"stranger.a": torch.zeros(1), "stranger.b": torch.zeros(1)})
    assert message.splitlines() == [
        "checkpoint does not fit architecture demo: none of its tensors has a name of GroundingDINO's",
        f"  missing * ({len(demo_state)} tensors)",
        "  unexpected stranger.* (2 tensors) (1,)",
        "  fix: take a checkpoint of GroundingDINO",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused(demo_state: dict[str, Tensor], value: float) -> None:
    broken = demo_state["feat_map.weight"].clone()
    broken[3, 4] = value
    message = refusal(DEMO, demo_state | {"feat_map.weight": broken})
    assert "NaN or infinity" in message
    assert "\n  feat_map.weight\n" in message
    assert "take a checkpoint of an earlier epoch" in message


def test_quantised_weights_are_refused_not_read_as_large_numbers(demo_state: dict[str, Tensor]) -> None:
    message = refusal(DEMO, demo_state | {"feat_map.weight": demo_state["feat_map.weight"].to(torch.int8)})
    assert "no floating point numbers in:\n  feat_map.weight\n" in message


# many names in few lines


@pytest.mark.parametrize(
    ("names", "left", "expected"),
    [
        ("a.0.w a.1.w a.2.w", "a.0.b a.1.b a.2.b", ["a.{0..2}.w (3 tensors)"]),
        ("a.0.w a.2.w", "a.1.w", ["a.{0,2}.w (2 tensors)"]),
        ("a.b.x a.b.y", "a.c", ["a.b.* (2 tensors)"]),
        ("a.b.x a.b.y", "", ["a.b.* (2 tensors)"]),
        ("a.b.x a.c.y", "", ["a.* (2 tensors)"]),
        (
            "a.0.b.0.w a.0.b.1.w a.1.b.0.w a.1.b.1.w",
            "a.0.b.0.v a.0.b.1.v a.1.b.0.v a.1.b.1.v",
            ["a.{0..1}.b.{0..1}.w (4 tensors)"],
        ),
        ("a", "b", ["a"]),
        ("a b", "c", ["a", "b"]),
        ("a1.w a2.w", "a1.b a2.b", ["a1.w", "a2.w"]),
        ("", "a", []),
    ],
)
def test_names_fold_into_lines_that_say_no_more_than_they_do(names: str, left: str, expected: list[str]) -> None:
    assert [str(folded) for folded in fold(names.split(), [*names.split(), *left.split()])] == expected
