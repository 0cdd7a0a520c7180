"""Small graphs for the tests of TensorRT: some that it compiles in half a second, and some that it refuses."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gdino_core import contract

WIDTH = 8  # of features
QUERIES = 2


def write_small_detector(path: Path) -> None:
    """Write a graph with the detector's inputs, outputs and axes, a convolution and two matrix products."""
    nodes = [
        helper.make_node("Cast", [contract.PIXELS], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["pixels", "filters"], ["cells"], strides=[32, 32], kernel_shape=[32, 32]),
        helper.make_node("ReduceMax", ["cells"], ["picture"], axes=[2, 3], keepdims=0),  # [B,WIDTH]
        helper.make_node("Unsqueeze", ["picture", "one"], ["row"]),  # [B,1,WIDTH]
        helper.make_node("Cast", [contract.VALID_HW], ["valid"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["valid"], ["longest"], axes=[1], keepdims=1),
        helper.make_node("Unsqueeze", ["longest", "one"], ["side"]),  # [B,1,1]
        helper.make_node("Mul", ["row", "side"], ["scaled"]),
        helper.make_node("Mul", ["scaled", "queries"], ["query_features"]),  # [B,QUERIES,WIDTH]
        helper.make_node("MatMul", [contract.TEXT_FEATURES, "weights"], ["text"], name="text/MatMul"),  # [B,T,WIDTH]
        helper.make_node("Transpose", ["text"], ["columns"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["query_features", "columns"], ["scores"]),  # [B,QUERIES,T]
        helper.make_node("Add", [contract.POSITION_IDS, contract.PHRASE_IDS], ["ids"]),
        helper.make_node("Cast", ["ids"], ["offsets"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["offsets", "one"], ["offset"]),
        helper.make_node("Add", ["scores", "offset"], [contract.LOGITS]),
        helper.make_node("Slice", ["query_features", "zero", "four", "two"], [contract.BOXES_CXCYWH]),
    ]
    generator = np.random.default_rng(0)
    constants = {
        "filters": generator.normal(size=(WIDTH, 3, 32, 32)).astype(np.float32),
        "weights": generator.normal(size=(WIDTH, WIDTH)).astype(np.float32),
        "queries": generator.normal(size=(1, QUERIES, WIDTH)).astype(np.float32),
        "zero": np.array([0]),
        "one": np.array([1]),
        "two": np.array([2]),
        "four": np.array([4]),
    }
    inputs = [
        helper.make_tensor_value_info(contract.PIXELS, TensorProto.UINT8, ["batch", 3, "height", "width"]),
        helper.make_tensor_value_info(contract.VALID_HW, TensorProto.INT32, ["batch", 2]),
        helper.make_tensor_value_info(contract.TEXT_FEATURES, TensorProto.FLOAT, ["batch", "tokens", WIDTH]),
        helper.make_tensor_value_info(contract.POSITION_IDS, TensorProto.INT32, ["batch", "tokens"]),
        helper.make_tensor_value_info(contract.PHRASE_IDS, TensorProto.INT32, ["batch", "tokens"]),
    ]
    outputs = [
        helper.make_tensor_value_info(contract.LOGITS, TensorProto.FLOAT, ["batch", QUERIES, "tokens"]),
        helper.make_tensor_value_info(contract.BOXES_CXCYWH, TensorProto.FLOAT, ["batch", QUERIES, 4]),
    ]
    _save(path, nodes, constants, inputs, outputs)


def write_graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    *,
    x_type: int = TensorProto.FLOAT,
    y_type: int = TensorProto.FLOAT,
    axes: Sequence[int | str] = ("batch", WIDTH),
    y_axes: Sequence[int | str] | None = None,
    **constants: np.ndarray,
) -> Path:
    """Write a graph from x to y, valid or not."""
    x = helper.make_tensor_value_info("x", x_type, list(axes))
    y = helper.make_tensor_value_info("y", y_type, list(axes if y_axes is None else y_axes))
    _save(path, list(nodes), constants, [x], [y], is_checked=False)
    return path


def node(op: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    """A node named after its operator, such as layer/MatMul; inputs are separated by spaces."""
    return helper.make_node(op, inputs.split(), [output], name=f"layer/{op}", **attributes)


def quantised_product(zero_point: np.ndarray) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """A matrix product of x with int8 weights, x rounded with the zero point that is given: nodes and constants."""
    nodes = [
        node("QuantizeLinear", "x scale zero", "numbers"),
        node("DequantizeLinear", "numbers scale zero", "rounded"),
        helper.make_node("DequantizeLinear", ["weights", "scale", "no_zero"], ["factors"], name="layer/weights"),
        node("MatMul", "rounded factors", "y"),
    ]
    constants = {
        "scale": np.float32(0.1),
        "zero": zero_point,
        "no_zero": np.int8(0),
        "weights": np.ones((WIDTH, WIDTH), np.int8),
    }
    return nodes, {name: np.asarray(value) for name, value in constants.items()}


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    *,
    is_checked: bool = True,
) -> None:
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, initializers)
    domains = {one.domain for one in nodes} | {""}
    opsets = [helper.make_opsetid(domain, 1 if domain else 17) for domain in sorted(domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    if is_checked:
        onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
