"""A graph that is specialised for one picture size asks for no shape, and answers the same to the last bit."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from gdino_build.clean import Pass, clean_graph
from gdino_build.exact_passes import (
    bypass_no_ops,
    drop_round_trips,
    merge_views,
    merge_whole_numbers,
    share_constants,
    slices_to_splits,
)
from gdino_build.gathers import moves_to_gathers
from gdino_build.parity import Array
from gdino_build.precision.emulation import emulate_in_fp32
from gdino_build.precision.lowering import lower_precision
from gdino_build.precision.quantisation import quantisable_nodes, quantise
from gdino_build.probing import probe, probe_open_sizes
from gdino_build.small_operators import count_operators
from gdino_build.specialise import PASSES, settle_sizes, specialise_file, specialise_graph, spread_over_batch
from gdino_core import contract
from gdino_core.errors import ExportError
from tests.pipeline.graphs import Builder, operators, run
from tests.pipeline.inputs import make_inputs

HW = (96, 160)
SIZES = {"height": HW[0], "width": HW[1]}
INT64 = np.dtype(np.int64)
NO_SHAPES = ("Shape", "Range", "CumSum", "GatherND", "ConstantOfShape", "NonZero")


@pytest.fixture(scope="module")
def specialised(onnx_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    file = tmp_path_factory.mktemp("specialised") / "detector_96x160.onnx"
    specialise_file(onnx_folder / "detector.onnx", file, SIZES)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    return onnx.load(file)


@pytest.fixture(scope="module")
def cleaned(onnx_folder: Path) -> onnx.ModelProto:
    return onnx.load(onnx_folder / "detector.onnx")


def detector_feed(*pictures: tuple[tuple[int, int], str], tokens: int = 16) -> dict[str, Array]:
    feed = dict(make_inputs(HW, *pictures, tokens=tokens))
    rows, columns = feed.pop(contract.INPUT_IDS).shape
    features = np.random.default_rng(tokens).standard_normal((rows, columns, 128), dtype=np.float32)
    return {**feed, contract.TEXT_FEATURES: features}


def assert_same_answers(before: onnx.ModelProto, after: onnx.ModelProto, *feeds: dict[str, Array]) -> None:
    for feed in feeds:
        for expected, found in zip(run(before, feed), run(after, feed), strict=True):
            np.testing.assert_array_equal(found, expected)


def applied(model: onnx.ModelProto, *passes: Callable[[gs.Graph], None]) -> onnx.ModelProto:
    graph = gs.import_onnx(model)
    for function in passes:
        function(graph)
        graph.cleanup().toposort()
    result: onnx.ModelProto = gs.export_onnx(graph)
    return result


def random(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


# the demo's detector


def test_nothing_on_the_static_path_asks_for_a_shape(specialised: onnx.ModelProto) -> None:
    assert not set(NO_SHAPES) & set(operators(specialised))
    assert count_operators(specialised.graph).size_arithmetic == 0


def test_height_and_width_are_numbers_while_batch_and_tokens_stay_open(specialised: onnx.ModelProto) -> None:
    shapes = {tensor.name: tensor.shape for tensor in gs.import_onnx(specialised).inputs}
    assert shapes[contract.PIXELS] == ["batch", 3, *HW]
    assert shapes[contract.PHRASE_IDS] == ["batch", "tokens"]


def test_answers_are_the_same_to_the_last_bit(cleaned: onnx.ModelProto, specialised: onnx.ModelProto) -> None:
    assert_same_answers(
        cleaned,
        specialised,
        detector_feed((HW, "red circle . blue star .")),
        detector_feed((HW, "cat . dog ."), ((70, 101), "a person riding a bicycle . red . green ."), tokens=32),
        detector_feed(((96, 33), "cat ."), ((64, 160), "red circle ."), ((1, 1), "dog . cat ."), tokens=11),
    )


def test_most_small_operators_are_gone(cleaned: onnx.ModelProto, specialised: onnx.ModelProto) -> None:
    before, after = count_operators(cleaned.graph), count_operators(specialised.graph)
    assert after.small < before.small / 2
    assert after.nodes < before.nodes


def test_folded_constants_do_not_swell_the_file(cleaned: onnx.ModelProto, specialised: onnx.ModelProto) -> None:
    assert specialised.ByteSize() < cleaned.ByteSize() + (8 << 20)


@pytest.mark.full  # half a minute
def test_every_pass_after_the_first_earns_its_place(cleaned: onnx.ModelProto) -> None:
    first, *others = PASSES
    settled = gs.export_onnx(specialise_graph(gs.import_onnx(cleaned), SIZES, [first]))

    def cost(passes: Sequence[Pass]) -> tuple[int, int]:
        graph = gs.export_onnx(clean_graph(gs.import_onnx(settled), tuple(passes))).graph
        return len(graph.node), sum(len(one.raw_data) for one in graph.initializer)

    with_all = cost(others)
    # What follows from constants alone has no shape noted: passes after the folding cannot do without it.
    (fold,) = (one for one in others if one.name == "fold-constants")
    assert cost([fold])[0] < cost([])[0]
    spared = [one for one in others if one is not fold]
    useless = [one.name for one in spared if cost([step for step in others if step is not one]) <= with_all]
    assert not useless


def test_fixed_batch_and_tokens_answer_the_same_too(cleaned: onnx.ModelProto) -> None:
    fixed = gs.export_onnx(specialise_graph(gs.import_onnx(cleaned), {**SIZES, "batch": 2, "tokens": 16}))
    assert count_operators(fixed.graph).forbidden == 0
    assert all(isinstance(size, int) for tensor in gs.import_onnx(fixed).inputs for size in tensor.shape)
    assert_same_answers(cleaned, fixed, detector_feed((HW, "red . blue ."), ((70, 101), "cat . dog ."), tokens=16))


@pytest.mark.parametrize("precision", [pytest.param("fp16", marks=pytest.mark.full), "bf16"])
def test_a_graph_of_lower_precision_is_specialised_too(
    cleaned: onnx.ModelProto, precision: str, tmp_path: Path
) -> None:
    graph = gs.import_onnx(cleaned)
    lower_precision(graph, precision, lambda node: node.op in ("MatMul", "LayerNormalization", "Add", "Mul"))
    lowered = gs.export_onnx(graph)
    onnx.save(lowered, tmp_path / "lowered.onnx")
    specialise_file(tmp_path / "lowered.onnx", tmp_path / "specialised.onnx", SIZES)
    after = onnx.load(tmp_path / "specialised.onnx")
    assert count_operators(after.graph).forbidden == 0
    feed = detector_feed((HW, "red circle ."), ((70, 101), "cat . dog ."), tokens=16)
    # Emulated: ONNX Runtime would round or not as casts happen to lie (see `emulation`).
    assert_same_answers(emulate_in_fp32(lowered), emulate_in_fp32(after), feed)


def test_a_quantised_graph_keeps_its_int8_weights_and_its_answers(cleaned: onnx.ModelProto, tmp_path: Path) -> None:
    graph = gs.import_onnx(cleaned)
    quantised = quantise(graph, {node.inputs[0].name: 4.0 for node in quantisable_nodes(graph)})
    before = gs.export_onnx(graph)
    onnx.save(before, tmp_path / "quantised.onnx")
    specialise_file(tmp_path / "quantised.onnx", tmp_path / "specialised.onnx", SIZES)
    after = onnx.load(tmp_path / "specialised.onnx")
    assert operators(after)["DequantizeLinear"] == operators(before)["DequantizeLinear"] > quantised
    assert count_operators(after.graph).size_arithmetic == 0
    assert_same_answers(before, after, detector_feed((HW, "red circle ."), ((70, 101), "cat . dog ."), tokens=16))


# probing


def test_a_size_that_the_probes_do_not_know_is_refused_with_its_name() -> None:
    build = Builder(["batch", 3, "height", 4])
    model = build.done(build.add("Relu", build.x))
    with pytest.raises(ExportError, match=r"leave height open[\s\S]*give numbers for height"):
        probe_open_sizes(gs.import_onnx(model))


def test_a_shape_that_depends_on_values_is_refused_with_its_tensor() -> None:
    build = Builder(["batch", 3])
    model = build.done(build.add("Cast", build.add("NonZero", build.x), to=1))
    with pytest.raises(ExportError, match=r"do not follow from \{'batch': 2\}; the first is NonZero_0_output"):
        probe(gs.import_onnx(model), {"batch": 2})


def test_a_size_is_named_by_the_open_sizes_that_it_is_made_of() -> None:
    build = Builder(["batch", "tokens", 6])
    heads = build.add("Reshape", build.x, np.array([0, 0, 2, 3]))
    moved = build.add("Transpose", heads, perm=[0, 2, 1, 3])
    model = build.done(build.add("Reshape", moved, np.array([-1, 3])))
    graph = gs.import_onnx(model)
    settle_sizes(graph)
    assert graph.tensors()["Reshape_2_output"].shape == ["2*batch*tokens", 3]
    assert graph.tensors()["Transpose_1_output"].shape == ["batch", 2, "tokens", 3]


def test_a_chain_that_only_ever_gives_one_value_is_a_constant() -> None:
    build = Builder(["batch", 5])
    five = build.size(build.add("Concat", build.x, build.x, axis=0), 1)
    model = build.done(build.add("Mul", build.x, build.add("Cast", five, to=1)))
    after = applied(model, settle_sizes)
    assert operators(after) == {"Mul": 1}
    assert_same_answers(model, after, {"x": random(3, 5)})


# passes, one by one


def test_a_constant_is_repeated_for_each_picture_without_asking_how_many_there_are() -> None:
    graph = Builder(["batch", 2], np.dtype(np.int32))
    graph.x.name = contract.VALID_HW
    target = graph.add("Concat", graph.size(graph.x, 0), np.array([3]), axis=0)
    model = graph.done(graph.add("Relu", graph.add("Expand", random(3), target)))
    after = applied(model, settle_sizes, spread_over_batch)
    assert not {"Shape", "Expand"} & set(operators(after))
    assert_same_answers(model, after, {contract.VALID_HW: np.ones((4, 2), np.int32)})


def test_a_constant_that_is_repeated_along_another_axis_too_keeps_its_shape() -> None:
    graph = Builder(["batch", 2], np.dtype(np.int32))
    graph.x.name = contract.VALID_HW
    target = graph.add("Concat", graph.size(graph.x, 0), np.array([4, 3]), axis=0)
    model = graph.done(graph.add("Relu", graph.add("Expand", random(4, 1), target)))
    after = applied(model, settle_sizes, spread_over_batch)
    assert_same_answers(model, after, {contract.VALID_HW: np.ones((2, 2), np.int32)})


def test_equal_constants_become_one() -> None:
    build = Builder([4])
    model = build.done(build.add("Add", build.add("Mul", build.x, random(4)), build.add("Mul", build.x, random(4))))
    after = applied(model, share_constants)
    assert [len(one.graph.initializer) for one in (model, after)] == [2, 1]
    assert_same_answers(model, after, {"x": random(4)})


def test_only_casts_that_lose_nothing_on_the_way_are_dropped() -> None:
    build = Builder([4], np.dtype(np.int32))
    wide = build.add("Cast", build.add("Cast", build.x, to=7), to=6)
    narrow = build.add("Cast", build.add("Cast", build.x, to=3), to=6)
    model = build.done(build.add("Add", wide, narrow), dtype=np.dtype(np.int32))
    after = applied(model, settle_sizes, drop_round_trips)
    assert operators(after) == {"Cast": 2, "Add": 1}
    assert_same_answers(model, after, {"x": np.array([1, 200, 70000, -5], np.int32)})


def test_whole_numbers_are_added_once_and_fractions_as_before() -> None:
    build = Builder([3], INT64)
    summed = build.add("Sub", build.add("Add", build.x, np.array(8)), np.array(1))
    float_sum = build.add("Add", build.add("Cast", build.x, to=1), np.array(0.1, np.float32))
    fraction = build.add("Cast", build.add("Add", float_sum, np.array(0.9, np.float32)), to=7)
    model = build.done(build.add("Mul", summed, fraction), dtype=INT64)
    after = applied(model, settle_sizes, merge_whole_numbers)
    assert operators(after)["Add"] == 3
    assert operators(after)["Sub"] == 0
    assert_same_answers(model, after, {"x": np.array([1, 5, -9])})


def test_a_chain_of_views_becomes_one_reshape_and_a_real_transposition_stays() -> None:
    build = Builder(["batch", 1, 6])
    view = build.add("Unsqueeze", build.add("Transpose", build.x, perm=[1, 0, 2]), np.array([0]))
    view = build.add("Reshape", view, np.array([-1, 2, 3]))
    model = build.done(build.add("Relu", build.add("Transpose", view, perm=[0, 2, 1])))
    after = applied(model, settle_sizes, merge_views)
    assert operators(after) == {"Reshape": 1, "Transpose": 1, "Relu": 1}
    assert_same_answers(model, after, {"x": random(4, 1, 6)})


def test_two_open_sizes_that_both_move_keep_their_views() -> None:
    build = Builder(["batch", "tokens", 4])
    view = build.add("Unsqueeze", build.add("Unsqueeze", build.x, np.array([0])), np.array([0]))
    model = build.done(build.add("Relu", view))
    after = applied(model, settle_sizes, merge_views)
    assert operators(after) == {"Unsqueeze": 2, "Relu": 1}
    assert_same_answers(model, after, {"x": random(2, 3, 4)})


def test_what_changes_nothing_is_bypassed_and_what_names_an_output_is_not() -> None:
    build = Builder(["batch", 3])
    same = build.add("Expand", build.add("Reshape", build.x, np.array([-1, 3])), np.array([1, 1]))
    model = build.done(build.add("Reshape", build.add("Relu", same), np.array([-1, 3])))
    after = applied(model, settle_sizes, bypass_no_ops)
    assert operators(after) == {"Relu": 1, "Reshape": 1}
    assert_same_answers(model, after, {"x": random(2, 3)})


def cut(build: Builder, start: int, stop: int, axis: int = 1) -> gs.Variable:
    return build.add("Slice", build.x, *(np.array([one]) for one in (start, stop, axis, 1)))


def test_slices_that_take_a_tensor_apart_become_one_split() -> None:
    build = Builder(["batch", 7])
    model = build.done(build.add("Concat", cut(build, 3, 1 << 40), cut(build, 0, 3, -1), axis=1))
    after = applied(model, settle_sizes, slices_to_splits)
    assert operators(after) == {"Split": 1, "Concat": 1}
    assert_same_answers(model, after, {"x": random(2, 7)})


@pytest.mark.parametrize("bounds", [[(0, 3), (4, 7)], [(0, 4), (3, 7)], [(0, 3), (3, 6)]])
def test_slices_with_a_gap_or_an_overlap_stay(bounds: list[tuple[int, int]]) -> None:
    build = Builder(["batch", 7])
    model = build.done(build.add("Concat", *(cut(build, *one) for one in bounds), axis=1))
    after = applied(model, settle_sizes, slices_to_splits)
    assert operators(after)["Slice"] == 2
    assert_same_answers(model, after, {"x": random(2, 7)})


def shifted_windows(build: Builder, x: gs.Tensor) -> gs.Variable:
    """Pad 5 x 4 cells of 3 channels to 6 x 4, shift the rows by one, and cut into windows of 2 x 2."""
    padded = build.add("Pad", x, np.array([0, 0, 0, 0, 0, 1, 0, 0]), mode="constant")
    last, first = (
        build.add("Slice", padded, *(np.array([one]) for one in (*bounds, 1, 1))) for bounds in ((1, 6), (0, 1))
    )
    rolled = build.add("Concat", last, first, axis=1)
    windows = build.add(
        "Transpose", build.add("Reshape", rolled, np.array([-1, 3, 2, 2, 2, 3])), perm=[0, 1, 3, 2, 4, 5]
    )
    return build.add("Reshape", windows, np.array([-1, 4, 3]))


def test_padding_shifting_and_cutting_windows_is_one_look_up() -> None:
    build = Builder(["batch", 5, 4, 3])
    model = build.done(build.add("Relu", shifted_windows(build, build.x)))
    after = applied(model, settle_sizes, moves_to_gathers)
    assert operators(after) == {"Reshape": 2, "Pad": 1, "Gather": 1, "Relu": 1}
    assert_same_answers(model, after, {"x": random(1, 5, 4, 3)}, {"x": random(3, 5, 4, 3)})


def test_the_mask_before_windows_is_padded_in_place_of_the_map() -> None:
    build = Builder(["batch", 5, 4, 3])
    mask = build.add("Cast", build.add("Greater", build.add("ReduceMax", build.x, axes=[-1]), np.float32([0])), to=1)
    model = build.done(build.add("Relu", shifted_windows(build, build.add("Mul", build.x, mask))))
    after = applied(model, settle_sizes, moves_to_gathers)
    (pad,) = (node for node in gs.import_onnx(after).nodes if node.op == "Pad")
    assert list(pad.inputs[0].shape) == ["batch", 20, 1]
    assert operators(after)["Gather"] == 2
    assert_same_answers(model, after, {"x": random(2, 5, 4, 3)})


def test_moves_that_take_rows_apart_or_pad_with_ones_stay() -> None:
    build = Builder(["batch", 4, 6])
    turned = build.add("Transpose", build.add("Reshape", build.x, np.array([-1, 4, 2, 3])), perm=[0, 2, 1, 3])
    halves = [build.add("Slice", turned, *(np.array([one]) for one in (*ends, 1, 1))) for ends in ((0, 1), (1, 2))]
    apart = build.add("Reshape", build.add("Concat", *halves[::-1], axis=1), np.array([-1, 4, 6]))
    one = np.array(1.0, np.float32)
    ones = build.add("Pad", build.add("Transpose", build.x, perm=[1, 0, 2]), np.array([0, 0, 0, 1, 0, 0]), one)
    turned_back = build.add("Slice", build.add("Transpose", ones, perm=[1, 0, 2]), *map(np.array, ([0], [4], [1], [1])))
    model = build.done(build.add("Add", apart, turned_back))
    after = applied(model, settle_sizes, moves_to_gathers)
    assert "Gather" not in operators(after)
    assert_same_answers(model, after, {"x": random(2, 4, 6)})
