"""What TensorRT refuses is told with the node, and the advice that comes with it holds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from gdino_build.tensorrt.flavour import Flavour
from gdino_build.tensorrt.parsing import input_dims, list_tensors, parse_onnx
from gdino_core.errors import ExportError
from tests.engines.graphs import WIDTH, node, quantised_product, write_graph

HALF = np.ones((WIDTH, WIDTH), np.float16)
GRID = ("batch", 2, 4, 4)


@pytest.fixture
def parse(flavour: Flavour) -> Callable[[Path], object]:
    """Parse a file; the builder lives as long as the test, as its network needs it."""
    log = flavour.module.Logger(flavour.module.Logger.INTERNAL_ERROR)
    builder = flavour.module.Builder(log)
    return lambda path: parse_onnx(flavour, builder, log, path)


def refusal(parse: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(ExportError) as caught:
        parse(path)
    return str(caught.value)


def test_an_unknown_operator_is_named_with_its_node(parse: Callable[[Path], object], tmp_path: Path) -> None:
    text = refusal(parse, write_graph(tmp_path / "a.onnx", [node("Unique", "x", "y")], y_axes=["n"]))
    assert "node 'layer/Unique', operator Unique: UNSUPPORTED_NODE: TensorRT has no Unique" in text
    assert "a.onnx" in text and "gdino-build inspect" in text


@pytest.mark.parametrize("zero_point", [np.uint8(128), np.int8(3)])
def test_a_zero_point_is_refused_and_symmetric_quantisation_mends_it(
    parse: Callable[[Path], object], tmp_path: Path, zero_point: np.ndarray
) -> None:
    nodes, constants = quantised_product(zero_point)
    text = refusal(parse, write_graph(tmp_path / "a.onnx", nodes, **constants))
    assert "operator QuantizeLinear" in text and "quantise symmetrically" in text
    nodes, constants = quantised_product(np.int8(0))
    parse(write_graph(tmp_path / "b.onnx", nodes, **constants))


def test_a_quantised_bias_is_refused_with_the_option_that_leaves_it_out(
    parse: Callable[[Path], object], tmp_path: Path
) -> None:
    nodes = [node("DequantizeLinear", "bias scale", "b"), node("Add", "x b", "y")]
    path = write_graph(tmp_path / "a.onnx", nodes, bias=np.ones(WIDTH, np.int32), scale=np.array(0.1, np.float32))
    assert "QuantizeBias=False" in refusal(parse, path)


def test_operators_of_integer_products_are_refused_in_favour_of_qdq(
    parse: Callable[[Path], object], tmp_path: Path
) -> None:
    nodes = [node("MatMulInteger", "x w", "y")]
    weights = np.ones((WIDTH, WIDTH), np.int8)
    path = write_graph(tmp_path / "a.onnx", nodes, x_type=TensorProto.INT8, y_type=TensorProto.INT32, w=weights)
    assert "quantise in QDQ form" in refusal(parse, path)


def test_uint8_can_only_be_cast_and_a_cast_first_mends_it(parse: Callable[[Path], object], tmp_path: Path) -> None:
    moved_first = [node("Transpose", "x", "t", perm=[1, 0]), node("Cast", "t", "y", to=TensorProto.FLOAT)]
    cast_first = [node("Cast", "x", "c", to=TensorProto.FLOAT), node("Transpose", "c", "y", perm=[1, 0])]
    types = {"x_type": TensorProto.UINT8, "y_axes": [WIDTH, "batch"]}
    assert "cast UINT8" in refusal(parse, write_graph(tmp_path / "a.onnx", moved_first, **types))
    parse(write_graph(tmp_path / "b.onnx", cast_first, **types))


def test_mixed_types_are_refused_and_casts_mend_them(parse: Callable[[Path], object], tmp_path: Path) -> None:
    mixed = [node("MatMul", "x w", "y")]
    text = refusal(parse, write_graph(tmp_path / "a.onnx", mixed, w=HALF))
    assert "type Float" in text and "lower_precision" in text
    cast = [node("Cast", "x", "c", to=TensorProto.FLOAT16), node("MatMul", "c w", "y")]
    parse(write_graph(tmp_path / "b.onnx", cast, y_type=TensorProto.FLOAT16, w=HALF))


def test_sampling_fp16_at_fp32_places_is_refused_and_fp32_sampling_mends_it(
    parse: Callable[[Path], object], tmp_path: Path
) -> None:
    places = np.zeros((1, 4, 4, 2), np.float32)
    half = [node("Cast", "x", "c", to=TensorProto.FLOAT16), node("GridSample", "c places", "y")]
    path = write_graph(tmp_path / "a.onnx", half, axes=(1, *GRID[1:]), y_type=TensorProto.FLOAT16, places=places)
    assert "leave GridSample in FP32" in refusal(parse, path)
    whole = [node("GridSample", "x places", "y")]
    parse(write_graph(tmp_path / "b.onnx", whole, axes=(1, *GRID[1:]), places=places))


def test_operators_of_onnx_runtime_are_refused_with_where_they_come_from(
    parse: Callable[[Path], object], tmp_path: Path
) -> None:
    nodes = [node("FusedMatMul", "x w", "y", domain="com.microsoft")]
    weights = np.ones((WIDTH, WIDTH), np.float32)
    assert "before ONNX Runtime optimises it" in refusal(parse, write_graph(tmp_path / "a.onnx", nodes, w=weights))


def test_a_damaged_file_is_called_damaged(parse: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no graph at all")
    assert "the file is damaged or no ONNX" in refusal(parse, tmp_path / "a.onnx")


def test_the_types_in_the_file_are_the_types_of_the_network(parse: Callable[[Path], object], tmp_path: Path) -> None:
    types = {"x_type": TensorProto.FLOAT16, "y_type": TensorProto.FLOAT16}
    network = parse(write_graph(tmp_path / "a.onnx", [node("MatMul", "x w", "y")], w=HALF, **types))
    _, outputs = list_tensors(network)
    assert outputs["y"].type_name == "HALF"


def test_inputs_keep_the_names_of_their_axes_and_the_types_of_the_contract(
    parse: Callable[[Path], object], small_detector: Path
) -> None:
    network = parse(small_detector)
    onnx_inputs = {
        one.name: tuple(axis.dim_param or axis.dim_value for axis in one.type.tensor_type.shape.dim)
        for one in onnx.load(small_detector).graph.input
    }
    assert input_dims(network) == onnx_inputs
    inputs, _ = list_tensors(network)
    assert (inputs["PIXELS"].type_name, inputs["PHRASE_IDS"].type_name) == ("UINT8", "INT32")
