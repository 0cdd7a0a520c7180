"""INT8 is what numpy computes with rounded integers, in every runtime, and only where weights are multiplied."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
import openvino as ov
import pytest
import torch
import torch.nn.functional as F

from gdino_build.parity import Array
from gdino_build.precision.quantisation import quantisable_nodes, quantise, quantised_weight
from tests.pipeline.graphs import Builder, operators

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 64), dtype=np.float32)
W = RNG.standard_normal((64, 32), dtype=np.float32) * np.geomspace(0.01, 10, 32, dtype=np.float32)
PICTURES = RNG.standard_normal((2, 16, 9, 7), dtype=np.float32)
# Channels of very different sizes along the input and the output: a scale along the wrong axis loses the small ones.
KERNEL = (
    RNG.standard_normal((24, 16, 3, 3), dtype=np.float32)
    * np.geomspace(0.01, 10, 24, dtype=np.float32)[:, None, None, None]
)
STRIDE_OF_CONV = 2


def integer(values: Array, scale: Array) -> Array:
    """Numbers int8 as float64: halves to even, clipped to -128 ... 127 as ONNX's QuantizeLinear does."""
    return np.clip(np.rint(values / scale), -128, 127).astype(np.float64)


def integer_matmul(x: Array, weight: Array, threshold: float) -> Array:
    """An independent INT8 product: integers multiplied and summed exactly, scaled once."""
    x_scale, w_scale = np.float32(threshold / 127), np.abs(weight).max(0) / np.float32(127)
    return integer(x, x_scale) @ integer(weight, w_scale) * (np.float64(x_scale) * w_scale)


def integer_conv(x: Array, kernel: Array, threshold: float) -> Array:
    x_scale = np.float32(threshold / 127)
    w_scale = np.abs(kernel).reshape(len(kernel), -1).max(1) / np.float32(127)
    numbers = [torch.from_numpy(integer(x, x_scale)), torch.from_numpy(integer(kernel, w_scale[:, None, None, None]))]
    sums = F.conv2d(*numbers, stride=STRIDE_OF_CONV, padding=1).numpy()
    return np.asarray(sums * (np.float64(x_scale) * w_scale)[:, None, None])


def quantised(model: onnx.ModelProto, thresholds: dict[str, float], products: int) -> onnx.ModelProto:
    graph = gs.import_onnx(model)
    assert quantise(graph, thresholds) == products
    changed: onnx.ModelProto = gs.export_onnx(graph)
    onnx.checker.check_model(changed, full_check=True)
    return changed


def matmul(weight: Array = W) -> onnx.ModelProto:
    build = Builder(["n", len(weight)])
    return build.done(build.add("MatMul", build.x, weight))


def conv() -> onnx.ModelProto:
    build = Builder(["n", 16, 9, 7])
    strides = [STRIDE_OF_CONV, STRIDE_OF_CONV]
    return build.done(build.add("Conv", build.x, KERNEL, strides=strides, pads=[1, 1, 1, 1], kernel_shape=[3, 3]))


def onnx_runtime(model: onnx.ModelProto, x: Array) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    answer: Array = session.run(None, {"x": x})[0]
    return answer


def compiled(model: onnx.ModelProto) -> ov.CompiledModel:
    core = ov.Core()
    return core.compile_model(core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def openvino(model: onnx.ModelProto, x: Array) -> Array:
    return np.array(compiled(model)({"x": x})[0])


Runtime = Callable[[onnx.ModelProto, Array], Array]
RUNTIMES = pytest.mark.parametrize("runtime", [onnx_runtime, openvino])
THRESHOLDS = pytest.mark.parametrize("threshold", [4.0, 1.5])  # the second clips


@RUNTIMES
@THRESHOLDS
def test_a_product_with_a_matrix_is_the_exact_product_of_rounded_integers(runtime: Runtime, threshold: float) -> None:
    found = runtime(quantised(matmul(), {"x": threshold}, 1), X)
    np.testing.assert_allclose(found, integer_matmul(X, W, threshold), rtol=1e-5, atol=1e-5 * np.abs(W).max())
    assert np.abs(found - X @ W).max() > 1e-2  # it is not FP32


@RUNTIMES
@THRESHOLDS
def test_a_convolution_has_a_scale_for_each_output_channel(runtime: Runtime, threshold: float) -> None:
    found = runtime(quantised(conv(), {"x": threshold}, 1), PICTURES)
    expected = integer_conv(PICTURES, KERNEL, threshold)
    error = np.abs(found - expected).max((0, 2, 3)) / np.abs(expected).max((0, 2, 3))
    assert error.max() < 1e-5, error  # of the smallest channel too


@pytest.mark.parametrize(("model", "layer"), [(matmul(), "FullyConnected"), (conv(), "Convolution")])
def test_openvino_really_computes_with_integers(model: onnx.ModelProto, layer: str) -> None:
    def types(of: onnx.ModelProto) -> dict[str, str]:
        operators = compiled(of).get_runtime_model().get_ops()
        return {
            op.get_rt_info()["layerType"].astype(str): op.get_rt_info()["runtimePrecision"].astype(str)
            for op in operators
        }

    assert types(model)[layer] == "f32"
    assert types(quantised(model, {"x": 4.0}, 1))[layer] in ("i8", "u8")


def test_weights_use_the_whole_range_and_lose_at_most_half_a_step() -> None:
    for values, axis in ((W, 1), (KERNEL, 0)):
        numbers, scale = quantised_weight(values, axis)
        by_channel = np.moveaxis(numbers, axis, 0).reshape(len(scale), -1).astype(np.float32)
        assert (numbers.dtype, scale.dtype) == (np.int8, np.float32)
        assert (np.abs(by_channel).max(1) == 127).all()
        error = np.abs(by_channel * scale[:, None] - np.moveaxis(values, axis, 0).reshape(len(scale), -1)).max(1)
        assert (error <= 0.5001 * scale).all()


@RUNTIMES
def test_a_channel_of_zeros_gives_zeros_and_no_nan(runtime: Runtime) -> None:
    weight = W.copy()
    weight[:, 3] = 0
    found = runtime(quantised(matmul(weight), {"x": 4.0}, 1), X)
    assert not found[:, 3].any()
    np.testing.assert_array_equal(quantised_weight(weight, 1)[1][3], 1.0)
    others = [channel for channel in range(32) if channel != 3]
    expected = integer_matmul(X, weight[:, others], 4.0)
    np.testing.assert_allclose(found[:, others], expected, rtol=1e-5, atol=1e-5 * np.abs(W).max())


def test_what_two_products_share_is_rounded_and_stored_once() -> None:
    build = Builder(["n", 64])
    weight = gs.Constant("weight", W)
    shared = build.add("Relu", build.x)
    products = [build.add("MatMul", shared, weight), build.add("MatMul", shared, W[:, ::-1].copy())]
    other = build.add("MatMul", build.x, weight)
    total = build.add("Add", build.add("Add", *products), other)
    model = quantised(build.done(total), {"x": 4.0, shared.name: 4.0}, 3)
    assert operators(model)["QuantizeLinear"] == 2  # of two activations
    assert operators(model)["DequantizeLinear"] == 4  # of these, and of two weights
    int8 = [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 2]
    assert len(int8) == 2
    positive = np.maximum(X, 0)
    expected = sum(integer_matmul(x, weight, 4.0) for x, weight in ((positive, W), (positive, W[:, ::-1]), (X, W)))
    np.testing.assert_allclose(onnx_runtime(model, X), expected, rtol=1e-5, atol=2e-5 * np.abs(W).max())


def test_products_of_activations_and_stacks_of_matrices_stay_as_they_are() -> None:
    build = Builder([4, 6, 64])
    stack = build.add("MatMul", build.x, np.broadcast_to(W, (4, 64, 32)).copy())
    scores = build.add("MatMul", build.x, build.add("Transpose", build.x, perm=[0, 2, 1]))
    constant_first = build.add("MatMul", np.eye(6, dtype=np.float32), scores)
    model = build.done(stack, constant_first)
    graph = gs.import_onnx(model)
    assert quantisable_nodes(graph) == []
    assert quantise(graph, {tensor: 1.0 for tensor in graph.tensors()}) == 0
    assert operators(gs.export_onnx(graph)) == operators(model)


@pytest.mark.parametrize("thresholds", [{}, {"x": 0.0}])
def test_an_activation_that_was_never_seen_or_always_zero_stays_fp32(thresholds: dict[str, float]) -> None:
    model = quantised(matmul(), thresholds, 0)
    assert operators(model) == {"MatMul": 1}
    np.testing.assert_allclose(onnx_runtime(model, X), X @ W, rtol=1e-4, atol=1e-4)


def test_a_weight_that_is_also_looked_up_keeps_its_exact_values_there() -> None:
    build = Builder(["n", 64])
    table = gs.Constant("table", W)
    rows = build.add("Gather", table, np.array([5, 7]), axis=0)
    model = quantised(build.done(build.add("MatMul", build.x, table), rows), {"x": 4.0}, 1)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": X})[1], W[[5, 7]])
