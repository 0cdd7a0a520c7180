"""TensorRT's plugin computes what the graph computes: checked by a function body of its documented semantics."""

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
import pytest
import torch

from gdino_build.deformable_plugin import (
    DOMAIN,
    OP,
    PLUGIN_VERSION,
    deformable_attentions_to_plugins,
    passes_with_plugins,
    with_function_body,
)
from gdino_build.model import DEMO
from gdino_build.parity import Array
from gdino_build.precision.lowering import lower_precision
from gdino_build.small_operators import count_operators
from gdino_build.specialise import specialise_graph
from gdino_core import contract
from gdino_core.errors import ExportError
from tests.pipeline.graphs import Builder, operators
from tests.pipeline.inputs import make_inputs

HW = (96, 160)
SIZES = {"height": HW[0], "width": HW[1]}
ATTENTIONS = DEMO.num_encoder_layers + DEMO.num_decoder_layers


@pytest.fixture(scope="module")
def cleaned(onnx_folder: Path) -> onnx.ModelProto:
    return onnx.load(onnx_folder / "detector.onnx")


@pytest.fixture(scope="module")
def dynamic(cleaned: onnx.ModelProto) -> onnx.ModelProto:
    """The cleaned graph with plugins, every size open."""
    graph = gs.import_onnx(cleaned)
    deformable_attentions_to_plugins(graph)
    return exported(graph)


@pytest.fixture(scope="module")
def static(cleaned: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with plugins, specialised for one size."""
    return exported(specialise_graph(gs.import_onnx(cleaned), SIZES, passes_with_plugins()))


def exported(graph: gs.Graph) -> onnx.ModelProto:
    model: onnx.ModelProto = gs.export_onnx(graph)
    del model.graph.value_info[:]
    return model


def answers(model: onnx.ModelProto, feed: dict[str, Array]) -> list[Array]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[Array] = session.run(None, feed)
    return found


def detector_feed(hw: tuple[int, int], *pictures: tuple[tuple[int, int], str]) -> dict[str, Array]:
    feed = dict(make_inputs(hw, *pictures))
    rows, columns = feed.pop(contract.INPUT_IDS).shape
    features = np.random.default_rng(0).standard_normal((rows, columns, DEMO.hidden_dim), dtype=np.float32)
    return {**feed, contract.TEXT_FEATURES: features}


def plugins(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == OP]


# the function body against an independent implementation


def sample_in_torch(value: Array, shapes: Array, locations: Array, weights: Array) -> Array:
    """Deformable attention by grid_sample, as Deformable DETR's reference in PyTorch has it."""
    pictures, queries, heads = locations.shape[:3]
    start, total = 0, torch.zeros(pictures * heads, value.shape[3], queries)
    for level, (rows, columns) in enumerate(shapes):
        tokens = torch.from_numpy(value[:, start : start + rows * columns]).permute(0, 2, 3, 1)
        image = tokens.reshape(pictures * heads, -1, rows, columns)
        grid = 2 * torch.from_numpy(locations[:, :, :, level]).transpose(1, 2).flatten(0, 1) - 1
        samples = torch.nn.functional.grid_sample(image, grid, align_corners=False)
        shares = torch.from_numpy(weights[:, :, :, level]).transpose(1, 2).flatten(0, 1)[:, None]
        total += (samples * shares).sum(-1)
        start += rows * columns
    return total.view(pictures, heads, -1, queries).permute(0, 3, 1, 2).numpy()


def plugin_model() -> onnx.ModelProto:
    types = [("value", 1, 4), ("shapes", 6, 2), ("starts", 6, 1), ("locations", 1, 6), ("weights", 1, 5)]
    inputs = [onnx.helper.make_tensor_value_info(name, kind, [None] * rank) for name, kind, rank in types]
    output = onnx.helper.make_tensor_value_info("output", 1, [None] * 4)
    node = onnx.helper.make_node(OP, [one.name for one in inputs], ["output"], domain=DOMAIN, plugin_version="2")
    graph = onnx.helper.make_graph([node], "plugin", inputs, [output])
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid(DOMAIN, 1)]
    return with_function_body(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8))


def test_the_function_body_samples_as_grid_sample_does_also_beyond_the_borders() -> None:
    rng = np.random.default_rng(0)
    shapes = np.array([[5, 7], [3, 4], [1, 2]], np.int32)
    starts = np.array([0, 35, 47], np.int32)
    value = rng.standard_normal((2, 49, 3, 6), dtype=np.float32)
    locations = rng.uniform(-0.4, 1.4, (2, 11, 3, 3, 4, 2)).astype(np.float32)
    locations[0, 0] = 0.0
    locations[0, 1] = 1.0
    weights = rng.uniform(0, 1, (2, 11, 3, 3, 4)).astype(np.float32)
    feed = {"value": value, "shapes": shapes, "starts": starts, "locations": locations, "weights": weights}
    [found] = answers(plugin_model(), feed)
    np.testing.assert_allclose(found, sample_in_torch(value, shapes, locations, weights), atol=2e-6)


# the demo's detector


@pytest.mark.parametrize("which", ["dynamic", "static"])
def test_every_deformable_attention_is_one_plugin_of_version_2(which: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(which)
    found = plugins(model)
    assert len(found) == ATTENTIONS
    for node in found:
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        assert attributes == {"plugin_version": PLUGIN_VERSION.encode(), "plugin_namespace": b""}
        assert len(node.input) == 5
    assert not operators(model)["GridSample"]


def test_the_file_for_tensorrt_holds_no_function_that_would_hide_the_plugin(static: onnx.ModelProto) -> None:
    assert not static.functions
    assert len(with_function_body(static).functions) == 1


def test_levels_are_constants_of_the_right_sizes_where_the_picture_is_fixed(static: onnx.ModelProto) -> None:
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in static.graph.initializer}
    for node in plugins(static):
        shapes, starts = constants[node.input[1]], constants[node.input[2]]
        np.testing.assert_array_equal(shapes, [[12, 20], [6, 10], [3, 5], [2, 3]])
        np.testing.assert_array_equal(starts, [0, 240, 300, 315])
        assert shapes.dtype == starts.dtype == np.int32


def test_each_plugin_stands_for_many_nodes_and_asks_for_no_shape_where_the_picture_is_fixed(
    cleaned: onnx.ModelProto, dynamic: onnx.ModelProto, static: onnx.ModelProto
) -> None:
    assert len(dynamic.graph.node) < len(cleaned.graph.node) - 20 * ATTENTIONS
    assert count_operators(static.graph).size_arithmetic == 0


def test_plugins_answer_as_the_graph_without_them(
    cleaned: onnx.ModelProto, dynamic: onnx.ModelProto, static: onnx.ModelProto
) -> None:
    feed = detector_feed(HW, (HW, "red circle . blue star ."), ((70, 101), "cat . dog ."))
    expected = answers(cleaned, feed)
    for model in (dynamic, static):
        onnx.checker.check_model(with_function_body(model))
        logits, boxes = answers(with_function_body(model), feed)
        np.testing.assert_allclose(boxes, expected[1], atol=1e-5)
        np.testing.assert_allclose(logits[:, :, :4], expected[0][:, :, :4], atol=1e-4)


def test_open_sizes_serve_another_size(cleaned: onnx.ModelProto, dynamic: onnx.ModelProto) -> None:
    feed = detector_feed((128, 64), ((128, 50), "red circle . blue star ."))
    for found, expected in zip(answers(with_function_body(dynamic), feed), answers(cleaned, feed), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-5)


def test_a_plugin_computes_in_fp32_in_a_graph_of_fp16(cleaned: onnx.ModelProto) -> None:
    graph = gs.import_onnx(cleaned)
    lower_precision(graph, "fp16", lambda node: node.op in ("MatMul", "Softmax", "GridSample"))
    deformable_attentions_to_plugins(graph)
    model = with_function_body(exported(graph))
    types = {
        info.name: info.type.tensor_type.elem_type
        for info in onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.value_info
    }
    assert {types[node.input[place]] for node in plugins(model) for place in (0, 3, 4)} == {onnx.TensorProto.FLOAT}
    feed = detector_feed(HW, (HW, "red circle . blue star ."))
    assert np.isfinite(answers(model, feed)[1]).all()


def test_a_graph_without_deformable_attention_is_refused() -> None:
    build = Builder(["batch", 3])
    graph = gs.import_onnx(build.done(build.add("Relu", build.x)))
    with pytest.raises(ExportError, match=r"no deformable attention[\s\S]*name a detector"):
        deformable_attentions_to_plugins(graph)


def test_a_sampling_of_another_kind_is_refused() -> None:
    build = Builder([1, 3, 4, 4])
    grid = build.add("Sigmoid", build.add("Slice", build.x, *map(np.array, ([0], [2], [3], [1]))))
    image = build.add("Relu", build.x)
    grid = build.add("Reshape", grid, np.array([1, 3, 4, 2]))
    model = build.done(build.add("Relu", build.add("GridSample", image, grid)))
    with pytest.raises(ExportError, match="not as the exporter writes it"):
        deformable_attentions_to_plugins(gs.import_onnx(model))
