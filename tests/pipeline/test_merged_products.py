"""Products of one tensor become one, and nothing else does."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from gdino_build.merged_products import merge_products
from gdino_build.parity import Array
from tests.pipeline.graphs import Builder, operators, run

RNG = np.random.default_rng(0)


def linear(build: Builder, x: gs.Tensor, width: int) -> gs.Variable:
    product = build.add("MatMul", x, RNG.standard_normal((8, width), dtype=np.float32))
    return build.add("Add", RNG.standard_normal(width, dtype=np.float32), product)


def merged(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = gs.import_onnx(model)
    merge_products(graph)
    result: onnx.ModelProto = gs.export_onnx(graph.cleanup().toposort())
    return result


def assert_close(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    x: Array = RNG.standard_normal((2, 5, 8), dtype=np.float32)
    for expected, found in zip(run(before, {"x": x}), run(after, {"x": x}), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_products_of_one_tensor_with_biases_become_one_that_is_split() -> None:
    build = Builder(["batch", 5, 8])
    parts = [linear(build, build.x, width) for width in (3, 1, 6)]
    model = build.done(build.add("Concat", parts[2], parts[0], parts[1], axis=-1))
    after = merged(model)
    assert operators(after) == {"MatMul": 1, "Add": 1, "Split": 1, "Concat": 1}
    assert_close(model, after)


def test_products_of_other_tensors_without_bias_or_read_twice_stay() -> None:
    build = Builder(["batch", 5, 8])
    bare = build.add("MatMul", build.x, RNG.standard_normal((8, 3), dtype=np.float32))
    read_twice = build.add("MatMul", build.x, RNG.standard_normal((8, 3), dtype=np.float32))
    biased = build.add("Add", build.add("Mul", read_twice, read_twice), np.ones(3, np.float32))
    other = linear(build, build.add("Relu", build.x), 3)
    model = build.done(build.add("Concat", bare, biased, linear(build, build.x, 3), other, axis=-1))
    after = merged(model)
    assert operators(after) == operators(model)
    assert_close(model, after)
