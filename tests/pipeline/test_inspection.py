"""`make inspect` counts what is in a graph."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from gdino_build.inspection import format_comparison, summarise


def write_graph(path: Path, *, relus: int) -> None:
    names = ["x", *(f"relu{index}" for index in range(relus))]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)]
    nodes += [
        helper.make_node("Shape", [names[-1]], ["shape"]),
        helper.make_node("Cast", ["shape"], ["size"], to=TensorProto.FLOAT),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", 3])]
    outputs = [helper.make_tensor_value_info("size", TensorProto.FLOAT, [2])]
    onnx.save(helper.make_model(helper.make_graph(nodes, "graph", inputs, outputs)), path)


def test_nodes_operators_and_shape_arithmetic_are_counted(tmp_path: Path) -> None:
    write_graph(tmp_path / "graph.onnx", relus=3)
    summary = summarise(tmp_path / "graph.onnx")
    assert summary.nodes == 5
    assert summary.operators == Counter(Relu=3, Shape=1, Cast=1)
    assert summary.shape_nodes == 2
    assert summary.bytes == (tmp_path / "graph.onnx").stat().st_size


def test_inputs_and_outputs_are_told_with_type_and_shape(tmp_path: Path) -> None:
    write_graph(tmp_path / "graph.onnx", relus=1)
    summary = summarise(tmp_path / "graph.onnx")
    assert [line.split() for line in summary.inputs] == [["x", "UINT8", "[batch,", "3]"]]
    assert [line.split() for line in summary.outputs] == [["size", "FLOAT", "[2]"]]


def test_the_report_shows_before_beside_after(tmp_path: Path) -> None:
    for name, relus in (("raw", 4), ("cleaned", 1)):
        write_graph(tmp_path / f"{name}.onnx", relus=relus)
    report = format_comparison("detector", summarise(tmp_path / "raw.onnx"), summarise(tmp_path / "cleaned.onnx"))
    lines = report.splitlines()
    assert lines[0].startswith("detector: 6 nodes raw, 3 cleaned; 2 and 2 of them shape arithmetic")
    assert [line.split()[:3] for line in lines[4:]] == [["Relu", "4", "1"], ["Shape", "1", "1"], ["Cast", "1", "1"]]


def test_an_operator_that_cleaning_removed_is_still_listed(tmp_path: Path) -> None:
    for name, relus in (("raw", 1), ("cleaned", 0)):
        write_graph(tmp_path / f"{name}.onnx", relus=relus)
    report = format_comparison("graph", summarise(tmp_path / "raw.onnx"), summarise(tmp_path / "cleaned.onnx"))
    assert ["Relu", "1", "0"] in [line.split()[:3] for line in report.splitlines()]
