"""Each pass removes the fault it names, from a graph of a few nodes here, and changes no answer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from gdino_build.clean import (
    PASSES,
    Pass,
    bypass_identities,
    clean_file,
    clean_graph,
    drop_no_op_casts,
    fix_reshape_targets,
    fold_constants,
    infer_shapes,
    merge_duplicates,
)
from gdino_build.parity import Array
from gdino_core import contract
from tests.pipeline.graphs import Builder, operators, run
from tests.pipeline.inputs import make_inputs

INT64 = np.dtype(np.int64)
WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


def cleaned(model: onnx.ModelProto, *passes: Callable[[gs.Graph], None]) -> onnx.ModelProto:
    steps = tuple(Pass(name=function.__name__, reason="", apply=function) for function in passes)
    result: onnx.ModelProto = gs.export_onnx(clean_graph(gs.import_onnx(model), steps))
    return result


def weight_count(model: onnx.ModelProto) -> int:
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)


def assert_same_answers(before: onnx.ModelProto, after: onnx.ModelProto, *feeds: Array) -> None:
    onnx.checker.check_model(after)
    for x in feeds:
        for expected, found in zip(run(before, {"x": x}), run(after, {"x": x}), strict=True):
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == expected.dtype


def random(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


# bypass-identities


def test_a_weight_that_is_shared_through_an_identity_is_stored_once() -> None:
    build = Builder(["batch", 3])
    weight = gs.Constant("weight", WEIGHT)
    first = build.add("MatMul", build.x, weight)
    second = build.add("MatMul", build.x, build.add("Identity", weight))
    model = build.done(build.add("Add", first, second))
    assert weight_count(cleaned(model, fold_constants)) == 2 * WEIGHT.size
    after = cleaned(model, bypass_identities, fold_constants)
    assert weight_count(after) == WEIGHT.size
    assert "Identity" not in operators(after)
    assert_same_answers(model, after, random(2, 3))


def test_an_identity_that_names_an_output_stays() -> None:
    build = Builder(["batch", 3])
    model = build.done(build.add("Identity", build.x))
    after = cleaned(model, bypass_identities)
    assert operators(after) == {"Identity": 1}
    assert_same_answers(model, after, random(2, 3))


# fold-constants


def test_what_depends_on_no_input_is_computed_once_and_for_all() -> None:
    build = Builder(["batch", 3])
    table = build.add(
        "Sin", build.add("Range", np.array(0.0, np.float32), np.array(3.0, np.float32), np.array(1.0, np.float32))
    )
    model = build.done(build.add("Add", build.x, table))
    assert operators(model) == {"Range": 1, "Sin": 1, "Add": 1}
    after = cleaned(model, fold_constants)
    assert operators(after) == {"Add": 1}
    assert_same_answers(model, after, random(2, 3))


def test_a_constant_that_would_swell_the_file_is_left_to_the_runtime() -> None:
    build = Builder([1])
    table = build.add("ConstantOfShape", np.array([8 << 20]), value=gs.Constant("value", np.ones(1, np.float32)))
    model = build.done(build.add("Add", build.x, table))
    after = cleaned(model, fold_constants)
    assert operators(after) == {"ConstantOfShape": 1, "Add": 1}


def test_a_fraction_between_two_casts_is_not_truncated() -> None:
    # graphsurgeon's own folding of shapes turns this into a multiplication by 0.
    build = Builder([4], INT64)
    half = build.add("Mul", build.add("Cast", build.x, to=1), np.array(0.5, np.float32))
    model = build.done(build.add("Cast", half, to=7), dtype=INT64)
    assert_same_answers(model, cleaned(model, infer_shapes, fold_constants), np.array([2, 5, 8, 100]))


# infer-shapes


def test_sizes_of_outputs_that_the_exporter_lost_are_known_again() -> None:
    build = Builder(["batch", 3])
    model = build.done(build.add("MatMul", build.x, WEIGHT))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "MatMuly_dim_1"
    assert gs.import_onnx(model).outputs[0].shape == ["batch", "MatMuly_dim_1"]
    after = cleaned(model, infer_shapes)
    assert gs.import_onnx(after).outputs[0].shape == ["batch", 4]
    assert_same_answers(model, after, random(2, 3))


# drop-no-op-casts


def test_a_cast_to_the_type_that_a_size_already_has_is_dropped() -> None:
    build = Builder(["batch", "tokens"])
    size = build.size(build.x, 1)
    model = build.done(build.add("Add", build.add("Cast", size, to=7), np.array([1])), dtype=INT64)
    assert operators(cleaned(model, drop_no_op_casts))["Cast"] == 1  # the exporter notes no type inside the graph
    after = cleaned(model, infer_shapes, drop_no_op_casts)
    assert "Cast" not in operators(after)
    assert_same_answers(model, after, random(2, 3))


def test_a_cast_to_another_type_or_to_an_output_stays() -> None:
    build = Builder([3])
    rounded = build.add("Cast", build.add("Cast", build.x, to=7), to=1)
    model = build.done(build.add("Add", rounded, build.x), build.add("Cast", build.x, to=1))
    after = cleaned(model, infer_shapes, drop_no_op_casts)
    assert operators(after)["Cast"] == 3
    assert_same_answers(model, after, np.array([0.4, 1.6, -2.5], np.float32))


# fix-reshape-targets


def test_a_reshape_does_not_ask_for_sizes_that_it_keeps() -> None:
    build = Builder(["batch", "tokens", 6])
    projected = build.add("Sin", build.x)
    # As the exporter does it: sizes of x, not of what is reshaped.
    target = build.add("Concat", build.size(build.x, 0), build.size(build.x, 1), np.array([2, 3]), axis=0)
    model = build.done(build.add("Relu", build.add("Reshape", projected, target)))
    assert operators(model)["Gather"] == 2
    after = cleaned(model, infer_shapes, fix_reshape_targets)
    assert operators(after) == {"Sin": 1, "Reshape": 1, "Relu": 1}
    assert gs.import_onnx(after).nodes[1].inputs[1].values.tolist() == [0, 0, 2, 3]
    assert_same_answers(model, after, random(2, 5, 6), random(1, 1, 6))


def test_a_reshape_infers_the_one_size_that_follows_from_the_rest() -> None:
    build = Builder(["batch", "tokens", 6])
    flat = build.add("Mul", build.size(build.x, 1), np.array([6]))
    target = build.add("Concat", build.size(build.x, 0), flat, axis=0)
    model = build.done(build.add("Relu", build.add("Reshape", build.x, target)))
    after = cleaned(model, infer_shapes, fix_reshape_targets)
    assert operators(after) == {"Reshape": 1, "Relu": 1}
    assert gs.import_onnx(after).nodes[0].inputs[1].values.tolist() == [0, -1]
    assert_same_answers(model, after, random(2, 5, 6), random(3, 1, 6))


def test_a_reshape_with_two_sizes_to_find_keeps_its_target() -> None:
    build = Builder(["batch", "tokens", 6])
    # The same sizes in another order: neither stays in its place.
    target = build.add("Concat", build.size(build.x, 1), build.size(build.x, 0), np.array([6]), axis=0)
    model = build.done(build.add("Relu", build.add("Reshape", build.x, target)))
    after = cleaned(model, infer_shapes, fix_reshape_targets)
    assert operators(after)["Concat"] == 1
    assert_same_answers(model, after, random(2, 5, 6))


def test_a_reshape_in_which_zero_means_empty_keeps_its_target() -> None:
    build = Builder(["batch", "tokens", 6])
    target = build.add("Concat", build.size(build.x, 0), build.size(build.x, 1), np.array([2, 3]), axis=0)
    model = build.done(build.add("Relu", build.add("Reshape", build.x, target, allowzero=1)))
    after = cleaned(model, infer_shapes, fix_reshape_targets)
    assert operators(after)["Concat"] == 1
    assert_same_answers(model, after, random(2, 5, 6))


# merge-duplicates


def test_layers_that_ask_for_the_same_size_ask_once() -> None:
    build = Builder(["batch", "tokens"])
    sizes = [build.size(build.x, 1) for _ in range(3)]
    model = build.done(build.add("Concat", *sizes, axis=0), dtype=INT64)
    assert operators(model)["Shape"] == 3
    after = cleaned(model, merge_duplicates)
    assert operators(after) == {"Shape": 1, "Gather": 1, "Unsqueeze": 1, "Concat": 1}
    assert_same_answers(model, after, random(2, 5))


def test_nodes_that_differ_in_an_attribute_a_constant_or_its_type_are_not_merged() -> None:
    build = Builder([3])
    outputs = [
        build.add("LeakyRelu", build.x, alpha=0.1),
        build.add("LeakyRelu", build.x, alpha=0.2),
        build.add("Mul", build.x, np.array(2.0, np.float32)),
        build.add("Mul", build.x, np.array([2.0], np.float32)),
        build.add("Mul", build.x, np.array(3.0, np.float32)),
        build.add("Cast", build.add("Cast", build.x, to=7), to=1),
        build.add("Cast", build.add("Cast", build.x, to=6), to=1),
    ]
    model = build.done(build.add("Concat", *outputs, axis=0))
    after = cleaned(model, merge_duplicates)
    assert operators(after) == operators(model)
    assert_same_answers(model, after, random(3))


def test_two_outputs_of_equal_value_keep_their_names() -> None:
    build = Builder([3])
    model = build.done(build.add("Relu", build.x), build.add("Relu", build.x))
    after = cleaned(model, merge_duplicates)
    assert [output.name for output in after.graph.output] == [output.name for output in model.graph.output]
    assert_same_answers(model, after, random(3))


def test_large_constants_are_told_apart() -> None:
    build = Builder([3])
    products = [build.add("Mul", build.add("Tile", build.x, np.array([4])), WEIGHT.ravel() + i) for i in range(2)]
    model = build.done(build.add("Add", *products))
    after = cleaned(model, merge_duplicates)
    assert operators(after) == {"Tile": 1, "Mul": 2, "Add": 1}
    assert_same_answers(model, after, random(3))


# the demo's graphs


def load(folder: Path, graph: str) -> onnx.ModelProto:
    return onnx.load(folder / f"{graph}.onnx")


def interface(graph: gs.Graph) -> list[tuple[str, np.dtype, int]]:
    return [(tensor.name, tensor.dtype, len(tensor.shape)) for tensor in (*graph.inputs, *graph.outputs)]


@pytest.mark.parametrize("name", [contract.MODEL_TEXT_ENCODER, contract.MODEL_DETECTOR])
def test_no_pass_changes_inputs_or_outputs_and_each_leaves_fewer_nodes_or_as_many(onnx_folder: Path, name: str) -> None:
    graph = gs.import_onnx(load(onnx_folder / "raw", name))
    before, counts = interface(graph), [len(graph.nodes)]
    shapes = [tensor.shape for tensor in graph.inputs]
    for step in PASSES:
        clean_graph(graph, (step,))
        assert interface(graph) == before, step.name
        assert [tensor.shape for tensor in graph.inputs] == shapes, step.name
        counts.append(len(graph.nodes))
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize("name", [step.name for step in PASSES])
def test_every_pass_earns_its_place_on_the_detector(onnx_folder: Path, name: str) -> None:
    raw = onnx_folder / "raw"
    without = tuple(step for step in PASSES if step.name != name)
    graph = gs.export_onnx(clean_graph(gs.import_onnx(load(raw, contract.MODEL_DETECTOR)), without))
    with_all = load(onnx_folder, contract.MODEL_DETECTOR)
    assert (len(graph.graph.node), graph.ByteSize()) > (len(with_all.graph.node), with_all.ByteSize())


def test_the_cleaned_graphs_answer_as_the_exported_ones_to_the_last_bit(onnx_folder: Path) -> None:
    inputs = dict(make_inputs((96, 128), ((96, 101), "red circle . blue star ."), ((70, 128), "cat . dog .")))
    text_inputs = {name: inputs[name] for name in ("INPUT_IDS", "POSITION_IDS", "PHRASE_IDS")}
    [features] = run(load(onnx_folder / "raw", contract.MODEL_TEXT_ENCODER), text_inputs)
    [cleaned_features] = run(load(onnx_folder, contract.MODEL_TEXT_ENCODER), text_inputs)
    np.testing.assert_array_equal(cleaned_features, features)
    del inputs["INPUT_IDS"]
    feed = {**inputs, "TEXT_FEATURES": features}
    raw = run(load(onnx_folder / "raw", contract.MODEL_DETECTOR), feed)
    for found, expected in zip(run(load(onnx_folder, contract.MODEL_DETECTOR), feed), raw, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_cleaning_halves_the_detector(onnx_folder: Path) -> None:
    raw, after = (load(folder, contract.MODEL_DETECTOR) for folder in (onnx_folder / "raw", onnx_folder))
    assert len(after.graph.node) < len(raw.graph.node) / 2


def test_no_shape_inside_the_graph_is_left_from_the_traced_size(onnx_folder: Path) -> None:
    assert not load(onnx_folder, contract.MODEL_DETECTOR).graph.value_info


def test_cleaning_that_breaks_off_leaves_the_older_graph_as_it_was(onnx_folder: Path, tmp_path: Path) -> None:
    def break_off(_: gs.Graph) -> None:
        raise KeyboardInterrupt

    file = tmp_path / "text_encoder.onnx"
    file.write_bytes(b"the older graph")
    with pytest.raises(KeyboardInterrupt):
        clean_file(onnx_folder / "raw" / file.name, file, (*PASSES, Pass(name="break", reason="", apply=break_off)))
    assert file.read_bytes() == b"the older graph"


def test_a_graph_that_is_not_valid_is_not_written(onnx_folder: Path, tmp_path: Path) -> None:
    def misname(graph: gs.Graph) -> None:
        graph.nodes[0].op = "NoSuchOperator"

    file = tmp_path / "text_encoder.onnx"
    with pytest.raises(onnx.checker.ValidationError, match="NoSuchOperator"):
        clean_file(onnx_folder / "raw" / file.name, file, (Pass(name="misname", reason="", apply=misname),))
    assert list(tmp_path.iterdir()) == []
