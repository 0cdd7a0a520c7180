"""Every kind of file that people have loads to the same tensors, to the bit."""

import json
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from gdino_build.checkpoint import canonical_state_dict, load_model, read_state_dict, weights_file, weights_files
from gdino_build.checkpoint.hugging_face import official_name
from gdino_build.model import DEMO
from gdino_core.errors import CheckpointError
from tests.pipeline.checkpoint_files import HUGGING_FACE_FILES, HUGGING_FACE_NAMES, hugging_face_state, save_all

IN_BOTH = {"4.57.6 save_pretrained", "4.57.6 state_dict", "5.23.0 save_pretrained", "5.23.0 state_dict"}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.fixture(scope="module")
def paths(demo_state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {path.name: path for path in save_all(demo_state, tmp_path_factory.mktemp("formats"))}


def test_the_golden_has_the_names_of_transformers_4_and_5() -> None:
    assert set(HUGGING_FACE_FILES) == IN_BOTH


@pytest.mark.parametrize(
    "name",
    [
        "official.pth",
        "open_groundingdino.pth",
        "official.safetensors",
        *(f"hugging_face_{file.replace(' ', '_')}" for file in HUGGING_FACE_FILES),
    ],
)
def test_each_format_loads_to_the_same_tensors(
    paths: dict[str, Path], demo_state: dict[str, Tensor], name: str
) -> None:
    state = canonical_state_dict(read_state_dict(paths[name]))
    assert_same(state, demo_state)
    assert_same(dict(load_model(DEMO, state).state_dict()), demo_state)


def test_the_saved_files_are_of_different_kinds(paths: dict[str, Path]) -> None:
    # If they were not, the test above would show one thing seven times.
    names = {name: frozenset(read_state_dict(path)) for name, path in paths.items()}
    assert len(set(names.values())) == len(names) == 7


def test_each_name_of_hugging_face_is_the_official_one_that_has_its_numbers() -> None:
    found, expected = {}, {}
    for name, (source, *_) in HUGGING_FACE_NAMES.items():
        official, third = official_name(name)
        shared = re.sub(r"^(transformer\.decoder\.)?bbox_embed\.\d", "bbox_embed.0", official)  # one head in all layers
        found[name] = shared if third is None else f"{shared}[{third}]"
        # Without a source there is nothing to say of a name but that nothing reads it.
        expected[name] = source if source is not None else found[name]
    assert found == expected


def test_what_hugging_face_has_beyond_the_official_tensors_is_dropped() -> None:
    extra = [name for name, (source, *_) in HUGGING_FACE_NAMES.items() if source is None]
    assert {name.rsplit(".", 2)[-2] for name in extra} == {"self", "layernorm"}  # window indices, an unused norm
    state = {name: torch.ones(1) for name in ("model.text_backbone.x", *extra)}
    assert canonical_state_dict(state).keys() == {"bert.x"}


@pytest.mark.parametrize("third", ["query", "key", "value"])
def test_a_query_key_or_value_that_is_missing_is_named(demo_state: dict[str, Tensor], third: str) -> None:
    state = hugging_face_state(demo_state, "4.57.6 save_pretrained")
    del state[f"model.decoder.layers.1.self_attn.{third}.weight"]
    left = ".*".join(name for name in ("query", "key", "value") if name != third)
    message = rf"decoder\.layers\.1\.self_attn\.in_proj_weight takes a query, a key and a value .* has {{'{left}'"
    with pytest.raises(CheckpointError, match=message):
        canonical_state_dict(state)


def test_a_name_of_hugging_face_that_is_not_known_stays_to_be_refused(demo_state: dict[str, Tensor]) -> None:
    state = hugging_face_state(demo_state, "4.57.6 save_pretrained") | {"model.encoder.stranger": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"unexpected model\.encoder\.stranger \(1,\)"):
        load_model(DEMO, canonical_state_dict(state))


# models in several files


def save_in_parts(folder: Path, state: dict[str, Tensor], kind: str) -> None:
    names = list(state)
    parts = {f"{kind}-0000{part + 1}-of-00003": names[part::3] for part in range(3)}
    suffix = ".safetensors" if kind == "model" else ".bin"
    for part, own in parts.items():
        tensors = {name: state[name].clone() for name in own}
        if kind == "model":
            safetensors.torch.save_file(tensors, folder / f"{part}{suffix}")
        else:
            torch.save(tensors, folder / f"{part}{suffix}")
    index = {"metadata": {}, "weight_map": {name: f"{part}{suffix}" for part, own in parts.items() for name in own}}
    (folder / f"{kind}{suffix}.index.json").write_text(json.dumps(index), encoding="utf-8")


@pytest.mark.parametrize("kind", ["model", "pytorch_model"])
def test_a_model_in_several_files_loads_from_its_folder_and_its_index(
    tmp_path: Path, demo_state: dict[str, Tensor], kind: str
) -> None:
    save_in_parts(tmp_path, hugging_face_state(demo_state, "5.23.0 save_pretrained"), kind)
    assert_same(canonical_state_dict(read_state_dict(tmp_path)), demo_state)
    assert_same(canonical_state_dict(read_state_dict(weights_file(tmp_path))), demo_state)
    assert len(weights_files(tmp_path)) == 3  # a change of any of them must build anew


def test_a_part_that_is_missing_is_named(tmp_path: Path, demo_state: dict[str, Tensor]) -> None:
    save_in_parts(tmp_path, demo_state, "model")
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"index\.json names model-00002-of-00003\.safetensors, which is not"):
        read_state_dict(tmp_path)


def test_one_part_given_for_the_whole_is_told(tmp_path: Path, demo_state: dict[str, Tensor]) -> None:
    save_in_parts(tmp_path, demo_state, "model")
    with pytest.raises(CheckpointError, match="name the folder if the checkpoint is in several files"):
        load_model(DEMO, canonical_state_dict(read_state_dict(tmp_path / "model-00001-of-00003.safetensors")))


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'])
def test_an_index_that_is_none_is_named(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"index\.json is no index of Hugging Face's"):
        read_state_dict(tmp_path)


def test_an_index_does_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "outside.safetensors")
    index = {"weight_map": {"a": "../outside.safetensors"}}
    (tmp_path / "inside" / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(CheckpointError, match="which is not beside it"):
        read_state_dict(tmp_path / "inside")


def test_safetensors_counts_where_a_folder_has_both(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert read_state_dict(tmp_path)["a"].item() == 1
