"""What stays FP32 is named by entries of which each is needed, and everything else is lowered."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs
import pytest

from gdino_build.checkpoint import load_model
from gdino_build.clean import clean_file
from gdino_build.export import export_detector
from gdino_build.model import SWINT_OGC
from gdino_build.precision import GRAPHS, LOW_PRECISIONS, policy
from gdino_build.precision.groups import group_of, list_groups
from gdino_build.precision.lowering import MOVERS, lower_precision
from gdino_build.precision.policy import KEPT_IN_FP32, is_lowered
from gdino_build.random_weights import random_state_dict
from gdino_core import contract
from tests.pipeline.tensor_types import inferred_types

PRECISIONS = pytest.mark.parametrize("precision", LOW_PRECISIONS)
LOW_NAMES = {"fp16": "FLOAT16", "bf16": "BFLOAT16"}
UNDEFINED = {"fp16": set(), "bf16": {"Conv", "GridSample"}}  # opset 17 does not define them for the type


@pytest.fixture(scope="module")
def models(onnx_folder: Path) -> dict[str, onnx.ModelProto]:
    return {name: onnx.load(onnx_folder / f"{name}.onnx") for name in GRAPHS}


def lowered(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    graph = gs.import_onnx(model)
    lower_precision(graph, precision, lambda node: is_lowered(node, precision))
    changed: onnx.ModelProto = gs.export_onnx(graph)
    return changed


def computing(model: onnx.ModelProto) -> dict[str, gs.Node]:
    """The nodes that compute, by name."""
    return {node.name: node for node in gs.import_onnx(model).nodes if node.op not in {*MOVERS, "Cast"}}


def kept_groups(nodes: Iterable[gs.Node], precision: str) -> set[str]:
    return {group_of(node) for node in nodes if not is_lowered(node, precision)}


def test_every_entry_says_why_and_for_which_precisions() -> None:
    for entry in KEPT_IN_FP32:
        assert len(entry.reason) > 30
        assert set(entry.precisions) <= set(LOW_PRECISIONS) and entry.precisions
    assert len({entry.pattern for entry in KEPT_IN_FP32}) == len(KEPT_IN_FP32)


def test_no_entry_could_be_left_out(models: dict[str, onnx.ModelProto], monkeypatch: pytest.MonkeyPatch) -> None:
    detector = computing(models[contract.MODEL_DETECTOR]).values()
    for index, entry in enumerate(KEPT_IN_FP32):
        for precision in entry.precisions:
            all_kept = kept_groups(detector, precision)
            others = tuple(
                replace(one, precisions=tuple(p for p in one.precisions if place != index or p != precision))
                for place, one in enumerate(KEPT_IN_FP32)
            )
            with monkeypatch.context() as patch:
                patch.setattr(policy, "KEPT_IN_FP32", others)
                assert kept_groups(detector, precision) < all_kept, entry.pattern


def assert_no_dead_branch(groups: set[str]) -> None:
    """Every alternative that an entry's pattern spells out matches a group."""
    for entry in KEPT_IN_FP32:
        for pattern in spelled_out(entry.pattern):
            assert any(re.match(pattern, group) for group in groups), pattern


def spelled_out(pattern: str) -> list[str]:
    """A pattern for each combination of the alternatives in (a|b) and (a|b)?."""
    found = re.search(r"\(([^()?][^()]*)\)(\??)", pattern)
    if not found:
        return [pattern]
    before, after = pattern[: found.start()], pattern[found.end() :]
    branches = [*found[1].split("|"), *([""] if found[2] else [])]
    return [one for branch in branches for one in spelled_out(f"{before}{branch}{after}")]


def test_patterns_are_spelled_out() -> None:
    assert spelled_out("(a|b)?c: (?!x)") == ["ac: (?!x)", "bc: (?!x)", "c: (?!x)"]
    assert spelled_out("(a|b): (c|d)") == ["a: c", "a: d", "b: c", "b: d"]


def test_every_pattern_names_groups_of_the_demo(models: dict[str, onnx.ModelProto]) -> None:
    assert_no_dead_branch(set(list_groups(models[contract.MODEL_DETECTOR])))


@pytest.mark.full  # half a minute: the export of the whole Swin-T
def test_every_pattern_names_groups_of_swin_t(models: dict[str, onnx.ModelProto], tmp_path: Path) -> None:
    export_detector(load_model(SWINT_OGC, random_state_dict(SWINT_OGC)), tmp_path / "raw.onnx")
    clean_file(tmp_path / "raw.onnx", tmp_path / "cleaned.onnx")
    groups = set(list_groups(onnx.load(tmp_path / "cleaned.onnx")))
    assert_no_dead_branch(groups)
    assert groups == set(list_groups(models[contract.MODEL_DETECTOR]))  # so what is shown for the demo holds for it


def test_the_text_encoder_is_lowered_whole(models: dict[str, onnx.ModelProto]) -> None:
    for precision in LOW_PRECISIONS:
        assert kept_groups(computing(models[contract.MODEL_TEXT_ENCODER]).values(), precision) == set()


@PRECISIONS
def test_what_no_entry_keeps_is_lowered_and_nothing_else(models: dict[str, onnx.ModelProto], precision: str) -> None:
    kept = [entry.pattern for entry in KEPT_IN_FP32 if precision in entry.precisions]
    count = {"lowered": 0, "kept": 0}
    for model in models.values():
        types = inferred_types(lowered(model, precision))
        before = inferred_types(model)
        for name, node in computing(model).items():
            if before[name] != "FLOAT":
                assert types[name] == before[name]  # indices, masks
                continue
            is_kept = any(re.match(pattern, group_of(node)) for pattern in kept)
            stays = is_kept or node.op in UNDEFINED[precision]
            assert types[name] == ("FLOAT" if stays else LOW_NAMES[precision]), (name, group_of(node))
            count["kept" if is_kept else "lowered"] += 1
    assert count["lowered"] > count["kept"] > 100


def test_nothing_is_rounded_between_the_layers_of_a_head_that_stays_fp32(models: dict[str, onnx.ModelProto]) -> None:
    types = inferred_types(lowered(models[contract.MODEL_DETECTOR], "bf16"))
    heads = {name: kind for name, kind in types.items() if "bbox_embed" in name or "ref_point_head" in name}
    inside = {name: kind for name, kind in heads.items() if name.startswith("/")}
    assert {name.split("/")[-1].split("_")[0] for name in inside} >= {"MatMul", "Add", "Relu"}
    assert set(inside.values()) == {"FLOAT"}
