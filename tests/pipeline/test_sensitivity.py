"""The scan lowers one group alone, says what that does to the answers, and reports the worst first."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs
import pytest
from PIL import Image

from gdino_build.precision import LOW_PRECISIONS, sensitivity
from gdino_build.precision.groups import group_of, list_groups
from gdino_build.precision.lowering import LOW_TYPES, MOVERS
from gdino_build.precision.sensitivity import Sensitivity, count_groups, scan
from gdino_build.precision.sensitivity_report import draw_sensitivities, format_sensitivities, write_sensitivities
from gdino_core import contract
from tests.pipeline.inputs import make_inputs

CASE = make_inputs((96, 128), ((96, 100), "red circle . blue star ."))
ONE = Sensitivity(
    graph="detector",
    group="decoder: arithmetic",
    nodes=29,
    box_mean=1e-4,
    box_max=6e-4,
    logit_max=4e-2,
    moved_proposals=0,
)
FOUND = [replace(ONE, group="encoder: arithmetic", box_mean=1e-6), ONE]


def test_every_precision_that_can_be_asked_for_has_a_type() -> None:
    assert tuple(LOW_TYPES) == LOW_PRECISIONS


@pytest.mark.parametrize(
    ("name", "op", "group"),
    [
        ("/decoder/layers.2/self_attn/MatMul_4", "MatMul", "decoder/layers/self_attn: products"),
        ("/decoder/ref_point_head/layers.0_1/MatMul", "MatMul", "decoder/ref_point_head/layers: products"),
        ("/backbone.0/layers.1/blocks.0/attn/Softmax", "Softmax", "backbone/layers/blocks: softmax"),
        ("/encoder/layers.0/self_attn/GridSample_3", "GridSample", "encoder/layers/self_attn: sampling"),
        ("/Add_8", "Add", "geometry, masks, proposals: arithmetic"),
    ],
)
def test_layers_of_one_kind_are_one_group(name: str, op: str, group: str) -> None:
    assert group_of(gs.Node(op, name)) == group


def test_a_bias_is_lowered_with_its_product(onnx_folder: Path) -> None:
    graph = gs.import_onnx(onnx.load(onnx_folder / f"{contract.MODEL_DETECTOR}.onnx"))
    groups = {node.name: group_of(node) for node in graph.nodes}
    assert groups["/encoder/layers.0/linear1/Add"] == groups["/encoder/layers.0/linear1/MatMul"]
    assert groups["/encoder/layers.0/Add"] == "encoder/layers: arithmetic"  # adds a residual


def test_groups_hold_every_node_that_computes_once(onnx_folder: Path) -> None:
    model = onnx.load(onnx_folder / f"{contract.MODEL_DETECTOR}.onnx")
    groups = list_groups(model)
    computing = [node for node in model.graph.node if node.op_type not in {*MOVERS, "Cast"}]
    assert sum(groups.values()) == len(computing)
    assert count_groups(onnx_folder) > len(groups) > 50


def test_boxes_suffer_where_boxes_are_computed(onnx_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Counter({"decoder: arithmetic": 29, "decoder/layers/linear1: products": 6, "nothing of this name": 1})
    monkeypatch.setattr(sensitivity, "list_groups", lambda model: asked)
    found = [one for one in scan(onnx_folder, "bf16", [CASE]) if one]
    boxes, layers = found
    assert [one.graph for one in found] == ["detector", "detector"]  # the text encoder has no decoder
    assert boxes.box_mean > 5 * layers.box_mean > 0
    assert boxes.moved_proposals == layers.moved_proposals == 0  # both come after the proposals
    assert boxes.box_max >= boxes.box_mean


def test_the_worst_group_comes_first_in_table_and_file(tmp_path: Path) -> None:
    head, first, second = format_sensitivities(FOUND).splitlines()
    assert head.split()[:2] == ["group", "nodes"]
    assert first.startswith("decoder: arithmetic") and second.startswith("encoder: arithmetic")
    write_sensitivities(FOUND, tmp_path / "sensitivity.json")
    rows = json.loads((tmp_path / "sensitivity.json").read_text(encoding="utf-8"))
    assert [row["group"] for row in rows] == ["decoder: arithmetic", "encoder: arithmetic"]


def test_the_chart_is_a_picture(tmp_path: Path) -> None:
    draw_sensitivities(FOUND, "bf16", tmp_path / "chart.png")
    assert len(Image.open(tmp_path / "chart.png").convert("RGB").getcolors(100_000) or ()) > 10
