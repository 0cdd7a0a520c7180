"""The fused deformable attention of the CPU engine samples as torch's grid_sample does, wherever a query looks."""

import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import openvino as ov
import pytest
import torch
from torch import Tensor, nn

from gdino_build import openvino_deformable
from gdino_build.clean import clean_file
from gdino_build.compiled_operator import compile_operator
from gdino_build.deformable import DOMAIN, OP, find_deformable_attentions, fuse_deformable_attentions
from gdino_build.engine import onnx_to_openvino
from gdino_build.export import OPSET
from gdino_build.model.attention import DeformableAttention
from gdino_build.model.geometry import build_geometry
from gdino_build.parity import Arrays
from gdino_build.precision.lowering import lower_precision
from gdino_core.errors import ExportError, ServerError
from gdino_core.openvino_engine import OpenVinoEngine, OpenVinoSettings
from tests.pipeline.graphs import Builder, operators

DIM, HEADS, LEVELS, POINTS = 64, 4, 4, 4
CHUNK = openvino_deformable._LARGEST_CHUNK
INPUTS = ("FRAME", "VALID_HW", "MEMORY", "QUERY", "BOXES")
OUTPUTS = ("ENCODED", "DECODED")
AXES = {
    "FRAME": {0: "batch", 1: "height", 2: "width"},
    "VALID_HW": {0: "batch"},
    "MEMORY": {0: "batch", 1: "image_tokens"},
    "QUERY": {0: "batch", 1: "queries"},
    "BOXES": {0: "batch", 1: "queries"},
    "ENCODED": {0: "batch", 1: "image_tokens"},
    "DECODED": {0: "batch", 1: "queries"},
}


class BothAttentions(nn.Module):
    """The encoder's attention, around reference points, and the decoder's, around reference boxes."""

    def __init__(self, dim: int = DIM) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dim = dim
        self.points = DeformableAttention(dim, HEADS, LEVELS, POINTS)
        self.boxes = DeformableAttention(dim, HEADS, LEVELS, POINTS)
        for attention in (self.points, self.boxes):
            nn.init.normal_(attention.sampling_offsets.weight, std=0.5)  # offsets of some four cells

    def forward(
        self, frame: Tensor, valid_hw: Tensor, memory: Tensor, query: Tensor, boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        geometry = build_geometry((frame.shape[1], frame.shape[2]), valid_hw, LEVELS, self.dim)
        seen = memory, geometry.token_valid, geometry.level_hw
        encoded = self.points(memory + geometry.position, geometry.reference_points, *seen)
        reference = boxes[:, :, None] * geometry.valid_ratio.repeat(1, 1, 2)[:, None]
        return encoded, self.boxes(query, reference, *seen)


@pytest.fixture(scope="module")
def module() -> BothAttentions:
    return BothAttentions().eval()


@pytest.fixture(scope="module")
def cleaned(module: BothAttentions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph of both, exported and cleaned as the detector is."""
    return export(module, tmp_path_factory.mktemp("deformable"))


def export(module: BothAttentions, folder: Path) -> Path:
    case = make_case((96, 160), [(90, 150), (64, 160)], 5, module.dim)
    example = tuple(torch.from_numpy(array) for array in case.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, as in export
        torch.onnx.export(
            module,
            example,
            str(folder / "raw.onnx"),
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes=AXES,
            opset_version=OPSET,
            dynamo=False,
        )
    clean_file(folder / "raw.onnx", folder / "cleaned.onnx")
    return folder / "cleaned.onnx"


@pytest.fixture(scope="module", params=["compiled", "composed"])
def engine(cleaned: Path, request: pytest.FixtureRequest) -> OpenVinoEngine:
    """Written to OpenVINO's format and read back, as the server reads it."""
    operator = request.getfixturevalue("compiled_operator") if request.param == "compiled" else None
    return to_engine(onnx.load(cleaned), cleaned.parent / request.param, operator)


def to_engine(model: onnx.ModelProto, folder: Path, operator: Path | None = None) -> OpenVinoEngine:
    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    onnx_to_openvino(folder / "model.onnx", folder / "model.xml", operator)
    return OpenVinoEngine(folder / "model.xml", OpenVinoSettings(threads=1))


def make_case(frame_hw: tuple[int, int], pictures: list[tuple[int, int]], queries: int, dim: int = DIM) -> Arrays:
    """Random inputs; every third box lies outside the picture or sticks far out of it."""
    rng = np.random.default_rng(1)
    batch = len(pictures)
    tokens = sum(-(-frame_hw[0] // stride) * -(-frame_hw[1] // stride) for stride in (8, 16, 32, 64))
    boxes = rng.random((batch, queries, 4), np.float32)
    boxes[:, ::3] = rng.uniform(-1.5, 2.5, boxes[:, ::3].shape)
    return {
        "FRAME": np.zeros((batch, *frame_hw), np.float32),
        "VALID_HW": np.array(pictures, np.int32),
        "MEMORY": rng.standard_normal((batch, tokens, dim), np.float32),
        "QUERY": rng.standard_normal((batch, queries, dim), np.float32),
        "BOXES": boxes,
    }


def in_torch(module: BothAttentions, case: Arrays) -> dict[str, np.ndarray]:
    with torch.inference_mode():
        answers = module(*(torch.from_numpy(case[name]) for name in INPUTS))
    return {name: answer.numpy() for name, answer in zip(OUTPUTS, answers, strict=True)}


def assert_same(module: BothAttentions, engine: OpenVinoEngine, case: Arrays) -> None:
    expected, found = in_torch(module, case), engine.infer(case)
    for name in OUTPUTS:
        assert np.abs(expected[name]).max() > 0.1
        np.testing.assert_allclose(found[name], expected[name], atol=2e-5, err_msg=name)


# the fused operator against grid_sample


@pytest.mark.parametrize(
    "frame_hw",
    [
        (96, 160),
        (32, 480),  # maps of 4, 2, 1 and 1 rows
        (480, 32),
        (32, 32),  # two levels of one cell
    ],
)
def test_a_picture_of_any_shape_is_sampled_as_by_grid_sample(
    module: BothAttentions, engine: OpenVinoEngine, frame_hw: tuple[int, int]
) -> None:
    assert_same(module, engine, make_case(frame_hw, [frame_hw], 40))


@pytest.mark.parametrize("queries", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
def test_no_query_is_lost_where_a_chunk_ends(module: BothAttentions, engine: OpenVinoEngine, queries: int) -> None:
    assert_same(module, engine, make_case((64, 96), [(64, 96)], queries))


@pytest.mark.parametrize("queries", [7, CHUNK, CHUNK + 1, 2 * CHUNK + 88])
def test_a_known_number_of_queries_fills_its_chunks(
    module: BothAttentions, cleaned: Path, tmp_path: Path, queries: int
) -> None:
    case = make_case((96, 160), [(90, 150), (64, 160)], queries)
    model = onnx.load(cleaned)
    for tensor in model.graph.input:
        for dim, size in zip(tensor.type.tensor_type.shape.dim, case[tensor.name].shape, strict=True):
            dim.dim_value = size
    assert_same(module, to_engine(model, tmp_path), case)
    chunks = {int(size) for size in re.findall(r'part_size="(\d+)"', (tmp_path / "model.xml").read_text())}
    assert -(-queries // -(-queries // CHUNK)) in chunks  # fewest chunks, and as equal as can be


@pytest.mark.parametrize("head_dim", [12, 32])
def test_the_compiled_operator_sums_rows_of_any_width(compiled_operator: Path, tmp_path: Path, head_dim: int) -> None:
    module = BothAttentions(HEADS * head_dim).eval()
    engine = to_engine(onnx.load(export(module, tmp_path)), tmp_path, compiled_operator)
    assert_same(module, engine, make_case((64, 96), [(64, 96), (50, 70)], 30, module.dim))


def test_each_picture_of_a_batch_is_sampled_in_its_own_map(module: BothAttentions, engine: OpenVinoEngine) -> None:
    case = make_case((96, 160), [(96, 160), (50, 160), (96, 33)], 100)  # chunks that two pictures share
    assert_same(module, engine, case)
    alone = engine.infer({name: values[1:2] for name, values in case.items()})
    together = engine.infer(case)
    for name in OUTPUTS:
        np.testing.assert_allclose(together[name][1:2], alone[name], atol=1e-5)


def test_what_lies_wholly_outside_reads_zero(module: BothAttentions, engine: OpenVinoEngine) -> None:
    case = {**make_case((64, 96), [(64, 96)], 7)}
    case["BOXES"] = np.tile(np.float32([50, -70, 0.1, 0.1]), (1, 7, 1))
    found = engine.infer(case)["DECODED"]
    nothing = module.boxes.output_proj.bias.detach().numpy()
    np.testing.assert_allclose(found, np.broadcast_to(nothing, found.shape), atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_a_box_that_is_no_place_harms_no_other_query(
    module: BothAttentions, engine: OpenVinoEngine, value: float
) -> None:
    case = make_case((64, 96), [(64, 96)], 9)
    expected = in_torch(module, case)["DECODED"]
    case["BOXES"][0, 4] = value
    found = engine.infer(case)["DECODED"]
    np.testing.assert_allclose(np.delete(found, 4, 1), np.delete(expected, 4, 1), atol=2e-5)


@pytest.mark.parametrize(("precision", "relative_error"), [("fp16", 5e-3), ("bf16", 4e-2)])
def test_a_graph_of_lower_types_is_fused_too_and_answers_near(
    module: BothAttentions, cleaned: Path, tmp_path: Path, precision: str, relative_error: float
) -> None:
    graph = gs.import_onnx(onnx.load(cleaned))
    # Places stay FP32, as the policy has it: 1/256 of 20 columns is a different sample.
    places = ("Div", "Mul", "Sub", "Add", "Clip", "Sin", "Cos")
    lower_precision(graph, precision, lambda node: node.op not in places and "sampling_offsets" not in node.name)
    lowered = gs.export_onnx(graph)
    kind = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}[precision]
    assert sum(one.data_type == kind for one in lowered.graph.initializer) > 4
    case = make_case((64, 96), [(64, 96), (40, 96)], 30)
    expected, found = in_torch(module, case), to_engine(lowered, tmp_path).infer(case)
    for name in OUTPUTS:
        error = np.abs(found[name] - expected[name]).mean() / np.abs(expected[name]).mean()
        assert 1e-5 < error < relative_error, (name, error)


# the compiled operator as a file


def test_the_compiled_operator_lies_beside_the_engine_that_needs_it(
    cleaned: Path, compiled_operator: Path, tmp_path: Path
) -> None:
    to_engine(onnx.load(cleaned), tmp_path, compiled_operator)
    assert (tmp_path / "model.operator.so").read_bytes() == compiled_operator.read_bytes()
    assert "EmbeddingBagPackedSum" not in (tmp_path / "model.xml").read_text()
    to_engine(onnx.load(cleaned), tmp_path)
    assert not (tmp_path / "model.operator.so").exists()


def test_an_engine_without_its_operator_or_with_one_that_cannot_be_loaded_is_refused(
    cleaned: Path, compiled_operator: Path, tmp_path: Path
) -> None:
    to_engine(onnx.load(cleaned), tmp_path, compiled_operator)
    for spoil in (lambda file: file.write_bytes(b"no library"), lambda file: file.unlink()):
        (tmp_path / "model.operator.so").unlink()
        shutil.copy(compiled_operator, tmp_path / "model.operator.so")
        spoil(tmp_path / "model.operator.so")
        with pytest.raises(ServerError, match=r"OpenVINO cannot load .*model\.xml: .+\n  fix: build the engine again"):
            OpenVinoEngine(tmp_path / "model.xml", OpenVinoSettings())


def test_it_is_compiled_once_and_without_a_compiler_told_and_done_without(
    compiled_operator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compile_operator(compiled_operator.parent) == compiled_operator
    assert compile_operator(tmp_path) is None
    assert "there is no C++ compiler" in capsys.readouterr().err
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(ExportError, match=r"cannot compile deformable_attention\.cpp"):
        compile_operator(tmp_path)
    assert not list(tmp_path.iterdir())


# what is in the fused graph


def test_both_attentions_become_one_node_each_and_no_sampler_is_left(cleaned: Path) -> None:
    model = onnx.load(cleaned)
    before = operators(model)
    graph = gs.import_onnx(model)
    assert fuse_deformable_attentions(graph) == 2
    after = operators(gs.export_onnx(graph))
    assert (before["GridSample"], after["GridSample"], after[OP]) == (2 * LEVELS, 0, 2)
    assert sum(after.values()) < sum(before.values()) - 60
    fused = sorted((node for node in graph.nodes if node.op == OP), key=lambda node: len(node.inputs))
    assert [node.domain for node in fused] == [DOMAIN, DOMAIN]
    assert [len(node.inputs) for node in fused] == [5, 6]  # boxes have an extent
    assert all(
        node.attrs == {"heads": HEADS, "head_dim": DIM // HEADS, "levels": LEVELS, "points": POINTS} for node in fused
    )


def test_the_edges_of_an_attention_are_found_with_their_shapes(cleaned: Path) -> None:
    found = find_deformable_attentions(gs.import_onnx(onnx.load(cleaned)))
    points, boxes = sorted(found, key=lambda one: one.extent is not None)
    assert points.extent is None and points.cells is not None
    assert boxes.extent is not None and boxes.cells is None
    for one in (points, boxes):
        assert list(one.value.shape[2:]) == [HEADS, DIM // HEADS]
        assert list(one.locations.shape[2:]) == [2, HEADS, LEVELS, POINTS]
        assert one.offsets.shape[2] == 2 * HEADS * LEVELS * POINTS


def test_no_tensor_holds_the_samples_of_all_queries(cleaned: Path, tmp_path: Path) -> None:
    to_engine(onnx.load(cleaned), tmp_path)
    model = ov.Core().read_model(tmp_path / "model.xml")
    assert "GridSample" not in {op.get_type_name() for op in model.get_ops()}
    queries, tokens = 4096, 12 * 20 + 6 * 10 + 3 * 5 + 2 * 3
    model.reshape(
        {
            "FRAME": [1, 96, 160],
            "VALID_HW": [1, 2],
            "MEMORY": [1, tokens, DIM],
            "QUERY": [1, queries, DIM],
            "BOXES": [1, queries, 4],
        }
    )
    sizes = [output.get_partial_shape().get_max_shape() for op in model.get_ops() for output in op.outputs()]
    samples_of_a_level = queries * POINTS * DIM
    known = [int(np.prod(shape)) for shape in sizes if not any(side < 0 for side in shape)]
    assert max(known) < samples_of_a_level
    assert max(known) >= queries * 2 * HEADS * LEVELS * POINTS  # the offsets: these sizes are known


# graphs of another form


def lone_sampler(graph: gs.Graph) -> gs.Graph:
    build = Builder([1, 2, 6, 8])
    grid = np.zeros((1, 4, 5, 2), np.float32)
    return gs.import_onnx(build.done(build.add("GridSample", build.x, grid)))


def clipped_samples(graph: gs.Graph) -> gs.Graph:
    """What is sampled goes through an operator more before it is weighted."""
    sampler = next(node for node in graph.nodes if node.op == "GridSample")
    [sampled] = sampler.outputs
    raw = gs.Variable("raw", dtype=np.dtype(np.float32))
    sampler.outputs = [raw]
    graph.nodes.append(gs.Node("Relu", "clip", {}, [raw], [sampled]))
    return graph


def border_samples(graph: gs.Graph) -> gs.Graph:
    """Outside the map, the nearest cell is read in the place of zero."""
    sampler = [node for node in graph.nodes if node.op == "GridSample"][-1]
    sampler.attrs["padding_mode"] = "border"
    return graph


def other_places(graph: gs.Graph) -> gs.Graph:
    """Places are not moved from 0 ... 1 to -1 ... 1, as with align_corners."""
    subtraction = next(
        node
        for node in graph.nodes
        if node.op == "Sub" and any(one.op == "Transpose" for one in node.outputs[0].outputs)
    )
    subtraction.op = "Add"
    return graph


def multiplied_sums(graph: gs.Graph) -> gs.Graph:
    """A sum of one level is squared before it is added to the others."""
    total = next(node for node in graph.nodes if node.op == "ReduceSum" and node.outputs[0].outputs[0].op == "Add")
    [summed] = total.outputs
    raw = gs.Variable("raw", dtype=np.dtype(np.float32))
    total.outputs = [raw]
    graph.nodes.append(gs.Node("Mul", "square", {}, [raw, raw], [summed]))
    return graph


def boxes_alone(graph: gs.Graph) -> gs.Graph:
    """No encoder, from which the sizes of the levels would be known."""
    graph.outputs = graph.outputs[1:]
    return graph.cleanup()


@pytest.mark.parametrize(
    "change", [lone_sampler, clipped_samples, border_samples, other_places, multiplied_sums, boxes_alone]
)
def test_a_graph_that_is_not_the_exporters_is_refused(cleaned: Path, change: Callable[[gs.Graph], gs.Graph]) -> None:
    graph = change(gs.import_onnx(onnx.load(cleaned)))
    with pytest.raises(ExportError, match=r"a deformable attention is not as the exporter writes it: .+") as caught:
        fuse_deformable_attentions(graph)
    assert "fix: export and clean again" in str(caught.value)


def test_a_graph_without_deformable_attention_stays_as_it_is() -> None:
    build = Builder([2, 3])
    graph = gs.import_onnx(build.done(build.add("Relu", build.x)))
    assert fuse_deformable_attentions(graph) == 0
    assert [node.op for node in graph.nodes] == ["Relu"]
