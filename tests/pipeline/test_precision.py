"""A lower precision is in the graph's types, and the emulation rounds as hardware would."""

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs
import openvino as ov
import pytest

from gdino_build.parity import Array, compare
from gdino_build.precision.emulation import emulate_in_fp32
from gdino_build.precision.lowering import LOW_TYPES, lower_precision
from gdino_build.stages import OnnxStage
from gdino_core import contract
from tests.pipeline.graphs import Builder, operators, run
from tests.pipeline.inputs import make_inputs

PRECISIONS = pytest.mark.parametrize("precision", LOW_TYPES)
X = np.random.default_rng(0).standard_normal((6, 8), dtype=np.float32)
W = np.random.default_rng(1).standard_normal((8, 8), dtype=np.float32)


def lowered(
    model: onnx.ModelProto, precision: str, is_lowered: Callable[[gs.Node], bool] = lambda _: True
) -> onnx.ModelProto:
    graph = gs.import_onnx(model)
    lower_precision(graph, precision, is_lowered)
    changed: onnx.ModelProto = gs.export_onnx(graph)
    onnx.checker.check_model(changed)
    return changed


def types(model: onnx.ModelProto) -> dict[str, str]:
    """The type that each node gives, after a strict check of all types."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    kinds = {info.name: info.type.tensor_type.elem_type for info in (*inferred.value_info, *inferred.output)}
    return {node.name: onnx.TensorProto.DataType.Name(kinds[node.output[0]]) for node in model.graph.node}


def rounded(values: Array, precision: str) -> Array:
    with np.errstate(over="ignore"):
        return values.astype(LOW_TYPES[precision]).astype(np.float32)


# the judge, against numpy

ELEMENTWISE: dict[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Min": np.minimum,
    "Max": np.maximum,
}


@PRECISIONS
@pytest.mark.parametrize("op", ELEMENTWISE)
def test_an_elementwise_operator_rounds_what_it_is_given_and_what_it_gives(op: str, precision: str) -> None:
    build = Builder([6, 8])
    emulated = emulate_in_fp32(lowered(build.done(build.add(op, build.x, W[:6])), precision))
    expected = rounded(ELEMENTWISE[op](rounded(X, precision), rounded(W[:6], precision)), precision)
    np.testing.assert_array_equal(run(emulated, {"x": X})[0], expected)


SINGLE: dict[str, Callable[[Array], Array]] = {
    "Relu": lambda x: np.maximum(x, 0),
    "Neg": np.negative,
    "Sqrt": lambda x: np.sqrt(x),
}


@PRECISIONS
@pytest.mark.parametrize("op", SINGLE)
def test_an_operator_of_one_input_rounds_likewise(op: str, precision: str) -> None:
    build = Builder([6, 8])
    emulated = emulate_in_fp32(lowered(build.done(build.add(op, build.x)), precision))
    expected = rounded(SINGLE[op](rounded(np.abs(X), precision)), precision)
    np.testing.assert_array_equal(run(emulated, {"x": np.abs(X)})[0], expected)


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def layer_norm(x: Array) -> Array:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + np.float32(1e-5))


SUMS: dict[str, tuple[tuple[Array, ...], dict[str, object], Callable[[Array, str], Array]]] = {
    "MatMul": ((W,), {}, lambda x, precision: x.astype(np.float64) @ rounded(W, precision)),
    "Softmax": ((), {"axis": -1}, lambda x, _: softmax(x.astype(np.float64))),
    "LayerNormalization": (
        (np.ones(8, np.float32), np.zeros(8, np.float32)),
        {"axis": -1, "epsilon": 1e-5},
        lambda x, _: layer_norm(x.astype(np.float64)),
    ),
}


@PRECISIONS
@pytest.mark.parametrize("op", SUMS)
def test_an_operator_that_sums_does_so_in_fp32_and_rounds_once(op: str, precision: str) -> None:
    constants, attributes, reference = SUMS[op]
    build = Builder([6, 8])
    emulated = emulate_in_fp32(lowered(build.done(build.add(op, build.x, *constants, **attributes)), precision))
    expected = rounded(reference(rounded(X, precision), precision).astype(np.float32), precision)
    found = run(emulated, {"x": X})[0]
    np.testing.assert_array_equal(found, rounded(found, precision))
    # FP32 sums in another order round to a neighbour where they lie between two numbers.
    np.testing.assert_allclose(found, expected, rtol=2 * float(ml_dtypes.finfo(LOW_TYPES[precision]).eps), atol=1e-7)
    assert (found == expected).mean() > 0.95


def test_fp16_overflows_loses_small_numbers_and_rounds_halves_to_even() -> None:
    build = Builder([6])
    emulated = emulate_in_fp32(lowered(build.done(build.add("Neg", build.x)), "fp16"))
    x = np.array([70000.0, 65519.0, 1e-8, 3e-8, 2049.0, 2051.0], np.float32)
    expected = -np.array([np.inf, 65504.0, 0.0, 2.0**-25 * 2, 2048.0, 2052.0], np.float32)
    np.testing.assert_array_equal(run(emulated, {"x": x})[0], expected)


@PRECISIONS
def test_numbers_between_operators_are_rounded_every_time(precision: str) -> None:
    build = Builder([6, 8])
    twice = build.add("Sub", build.add("Add", build.x, W[:6]), W[:6])
    found = run(emulate_in_fp32(lowered(build.done(twice), precision)), {"x": X})[0]
    w = rounded(W[:6], precision)
    expected = rounded(rounded(rounded(X, precision) + w, precision) - w, precision)
    np.testing.assert_array_equal(found, expected)
    assert (found != X).any()


def test_openvino_computes_bf16_as_the_emulation_does(tmp_path: Path) -> None:
    build = Builder([6, 8])
    product = build.add("Relu", build.add("MatMul", build.x, W))
    model = lowered(build.done(build.add("Add", build.add("MatMul", product, W), X)), "bf16")
    onnx.save(model, tmp_path / "model.onnx")
    engine = ov.Core().compile_model(tmp_path / "model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found, expected = engine({"x": X})[0], run(emulate_in_fp32(model), {"x": X})[0]
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.1)
    assert np.abs(found - expected).mean() < 0.3 * np.abs(expected - (np.maximum(X @ W, 0) @ W + X)).mean()


# types


@PRECISIONS
def test_chosen_nodes_change_their_type_and_others_keep_fp32(precision: str) -> None:
    build = Builder([6, 8])
    first = build.add("MatMul", build.x, W)
    second = build.add("MatMul", build.add("Relu", first), W)
    model = lowered(build.done(second), precision, lambda node: node.name == "MatMul_0")
    found = types(model)
    assert found["MatMul_0"] == {"fp16": "FLOAT16", "bf16": "BFLOAT16"}[precision]
    assert (found["Relu_1"], found["MatMul_2"]) == ("FLOAT", "FLOAT")
    assert [info.type.tensor_type.elem_type for info in model.graph.output] == [onnx.TensorProto.FLOAT]


def test_a_tensor_is_cast_once_for_all_who_need_it() -> None:
    build = Builder([6, 8])
    queries, keys = build.add("MatMul", build.x, W), build.add("MatMul", build.x, W)
    model = lowered(build.done(build.add("Add", queries, keys)), "fp16", lambda node: node.op == "MatMul")
    assert operators(model)["Cast"] == 3  # x, and both products


def test_what_only_moves_numbers_follows_them() -> None:
    build = Builder([6, 8])
    moved = build.add("Transpose", build.add("MatMul", build.x, W), perm=[1, 0])
    found = types(lowered(build.done(build.add("Sqrt", moved)), "fp16", lambda node: node.op == "MatMul"))
    assert found["Transpose_1"] == "FLOAT16"
    assert found["Sqrt_2"] == "FLOAT"


def test_a_table_of_weights_is_stored_in_the_lower_type() -> None:
    build = Builder([3], np.dtype(np.int64))
    model = lowered(build.done(build.add("Gather", W, build.x, axis=0)), "fp16")
    assert [tensor.data_type for tensor in model.graph.initializer] == [onnx.TensorProto.FLOAT16]


@pytest.mark.parametrize(("precision", "expected"), [("fp16", "FLOAT16"), ("bf16", "FLOAT")])
def test_an_operator_that_is_not_defined_for_the_type_keeps_fp32(precision: str, expected: str) -> None:
    build = Builder([1, 2, 6, 8])
    grid = np.random.default_rng(2).uniform(-1, 1, (1, 4, 5, 2)).astype(np.float32)
    model = lowered(build.done(build.add("GridSample", build.x, grid)), precision)
    assert types(model)["GridSample_0"] == expected
    [grid_type] = [tensor.data_type for tensor in model.graph.initializer]
    assert grid_type == onnx.TensorProto.FLOAT  # places stay exact, whatever is looked up there


def test_arithmetic_on_sizes_stays_int64() -> None:
    build = Builder(["n", 8])
    size = build.add("Mul", build.size(build.x, 0), np.array([2]))
    flat = build.add(
        "Reshape", build.add("Concat", build.x, build.x, axis=0), build.add("Concat", size, np.array([8]), axis=0)
    )
    model = lowered(build.done(build.add("Relu", flat)), "fp16")
    assert types(model)["Mul_3"] == "INT64"


# the whole detector


@PRECISIONS
def test_the_demo_lowered_throughout_is_near_fp32_and_not_equal_to_it(
    onnx_folder: Path, cleaned_stage: OnnxStage, tmp_path: Path, precision: str
) -> None:
    for name in (contract.MODEL_TEXT_ENCODER, contract.MODEL_DETECTOR):
        model = lowered(onnx.load(onnx_folder / f"{name}.onnx"), precision)
        assert set(types(model).values()) >= {"FLOAT", {"fp16": "FLOAT16", "bf16": "BFLOAT16"}[precision]}
        onnx.save(emulate_in_fp32(model), tmp_path / f"{name}.onnx")
    case = make_inputs((96, 128), ((96, 100), "red circle . blue star ."))
    stage = OnnxStage(tmp_path)
    found = stage.forced(case, cleaned_stage(case).proposals)
    expected = cleaned_stage.forced(case, cleaned_stage(case).proposals)
    difference = float(np.median(np.abs(found.boxes - expected.boxes)))
    assert 1e-6 < difference < {"fp16": 1e-3, "bf16": 1e-2}[precision]
    assert compare(stage, stage.forced, [case]).max_abs_logit == 0.0
