"""A stand-in for the two graphs: their names, types and shapes, and answers that a test can foresee."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gdino_core import contract

NUM_QUERIES = 2  # as many phrases as the tests ask for
TEXT_DIM = 8
LOGIT_OF_PHRASE = 2.0  # sigmoid: 0.88
LOGIT_OF_NOTHING = -10.0


def write_text_encoder(path: Path) -> None:
    """Write a graph that repeats INPUT_IDS as TEXT_FEATURES [B,T,TEXT_DIM]."""
    nodes = [
        helper.make_node("Add", [contract.INPUT_IDS, contract.POSITION_IDS], ["ids"]),
        helper.make_node("Max", ["ids", contract.PHRASE_IDS], ["ids_too"]),
        helper.make_node("Cast", ["ids_too"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["floats", "last_axis"], ["column"]),
        helper.make_node("Mul", ["column", "ones"], [contract.TEXT_FEATURES]),
    ]
    constants = {"last_axis": np.array([2]), "ones": np.ones((1, 1, TEXT_DIM), np.float32)}
    ids = [_info(name, TensorProto.INT32, ["batch", "tokens"]) for name in _IDS]
    features = _info(contract.TEXT_FEATURES, TensorProto.FLOAT, ["batch", "tokens", TEXT_DIM])
    _save(path, nodes, constants, ids, [features])


def write_detector(path: Path) -> None:
    """Write a graph whose query q finds phrase q + 1 in the q-th column of the picture, unless that is black."""
    nodes = [
        helper.make_node("Unsqueeze", [contract.PHRASE_IDS, "query_axis"], ["phrases"]),  # [B,1,T]
        helper.make_node("Equal", ["phrases", "phrase_of_query"], ["asked"]),  # [B,Q,T]
        helper.make_node("Cast", [contract.PIXELS], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["pixels"], ["brightest"], axes=[1, 2, 3], keepdims=0),  # [B]
        helper.make_node("Greater", ["brightest", "zero"], ["bright"]),
        helper.make_node("Unsqueeze", ["bright", "token_axes"], ["bright_everywhere"]),  # [B,1,1]
        helper.make_node("And", ["asked", "bright_everywhere"], ["found"]),
        helper.make_node("Where", ["found", "yes", "no"], ["clean_logits"]),
        helper.make_node("ReduceMax", [contract.TEXT_FEATURES], ["feature"], axes=[1, 2], keepdims=1),
        helper.make_node("Cast", [contract.POSITION_IDS], ["positions"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["positions", "query_axis"], ["position"]),
        helper.make_node("Add", ["feature", "position"], ["rest"]),
        helper.make_node("Mul", ["rest", "zero"], ["nothing"]),  # uses these inputs, changes no answer
        helper.make_node("Add", ["clean_logits", "nothing"], [contract.LOGITS]),
        helper.make_node("Cast", [contract.VALID_HW], ["valid_hw"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["valid_hw"], ["longest"], axes=[1], keepdims=1),
        helper.make_node("Unsqueeze", ["longest", "query_axis"], ["longest_side"]),  # [B,1,1]
        helper.make_node("Mul", ["longest_side", "zero"], ["no_offset"]),
        helper.make_node("Add", ["boxes", "no_offset"], [contract.BOXES_CXCYWH]),
    ]
    constants = {
        "query_axis": np.array([1]),
        "token_axes": np.array([1, 2]),
        "phrase_of_query": np.arange(1, NUM_QUERIES + 1, dtype=np.int32)[None, :, None],
        "zero": np.float32(0),
        "yes": np.float32(LOGIT_OF_PHRASE),
        "no": np.float32(LOGIT_OF_NOTHING),
        "boxes": column_boxes()[None],
    }
    inputs = [
        _info(contract.PIXELS, TensorProto.UINT8, ["B", 3, "H", "W"]),
        _info(contract.VALID_HW, TensorProto.INT32, ["B", 2]),
        _info(contract.TEXT_FEATURES, TensorProto.FLOAT, ["B", "T", TEXT_DIM]),
        _info(contract.POSITION_IDS, TensorProto.INT32, ["B", "T"]),
        _info(contract.PHRASE_IDS, TensorProto.INT32, ["B", "T"]),
    ]
    outputs = [
        _info(contract.LOGITS, TensorProto.FLOAT, ["B", NUM_QUERIES, "T"]),
        _info(contract.BOXES_CXCYWH, TensorProto.FLOAT, ["B", NUM_QUERIES, 4]),
    ]
    _save(path, nodes, constants, inputs, outputs)


def column_boxes() -> np.ndarray:
    """Boxes [Q,4], centre x, centre y, width, height: the picture cut into NUM_QUERIES columns."""
    centres = (np.arange(NUM_QUERIES, dtype=np.float32) + 0.5) / NUM_QUERIES
    return np.stack(
        [centres, np.full_like(centres, 0.5), np.full_like(centres, 1 / NUM_QUERIES), np.ones_like(centres)], 1
    )


_IDS = (contract.INPUT_IDS, contract.POSITION_IDS, contract.PHRASE_IDS)


def _info(name: str, data_type: int, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, data_type, shape)


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
) -> None:
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
