"""A number that FP16 cannot hold is found, wherever it is, before anything is served in FP16."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from gdino_build.precision import GRAPHS
from gdino_build.precision.emulation import emulate_in_fp32
from gdino_build.precision.lowering import lower_precision
from gdino_build.precision.policy import is_lowered
from gdino_build.precision.ranges import (
    LARGEST_FP16,
    Range,
    adversarial_cases,
    adversarial_pictures,
    format_ranges,
    fp16_tensors,
    largest_sizes,
    measure_ranges,
    scan_ranges,
    write_ranges,
)
from gdino_build.profile import load_profile
from gdino_build.stages import OnnxStage
from gdino_core import contract
from tests.pipeline.graphs import Builder
from tests.pipeline.tensor_types import types_of_computing

HW = (96, 128)


def lowered(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = gs.import_onnx(model)
    lower_precision(graph, "fp16", lambda node: is_lowered(node, "fp16"))
    changed: onnx.ModelProto = gs.export_onnx(graph)
    return changed


# which pictures


def test_the_largest_buckets_are_those_of_most_pixels_and_of_the_longest_side() -> None:
    assert largest_sizes([(64, 64), (64, 128), (128, 64), (32, 256), (32, 64)]) == [(64, 128), (128, 64), (32, 256)]
    assert set(largest_sizes(load_profile("demo-cpu").preprocess.resolution_buckets)) == {
        (128, 256),
        (256, 128),
        (32, 480),
        (480, 32),
    }
    assert set(largest_sizes(load_profile("swint-cpu").preprocess.resolution_buckets)) == {
        (800, 1344),
        (1344, 800),
        (64, 2688),
        (2688, 64),
    }


def test_the_pictures_are_the_extremes() -> None:
    pictures = dict(adversarial_pictures(64, 96))
    assert all((one.dtype, one.shape) == (np.uint8, (3, 64, 96)) for one in pictures.values())
    assert not pictures["black"].any()
    assert (pictures["white"] == 255).all()
    fine, coarse = pictures["checkerboard of 1"], pictures["checkerboard of 32"]
    for board, cell in ((fine, 1), (coarse, 32)):
        assert set(np.unique(board)) == {0, 255}
        assert (board[:, : 64 - cell] == 255 - board[:, cell:]).all()  # every cell down
        assert (board[:, :, : 96 - cell] == 255 - board[:, :, cell:]).all()  # and across
    assert len(np.unique(pictures["noise"])) == 256
    assert set(np.unique(pictures["black and white noise"])) == {0, 255}
    assert abs(pictures["black and white noise"].mean() - 127.5) < 5


def test_every_picture_comes_at_every_size_and_fills_it() -> None:
    sizes = [(64, 96), (96, 64)]
    cases = list(adversarial_cases(sizes, ("cat .", "dog . bird ."), (16,)))
    names = [name for name, _ in adversarial_pictures(64, 96)]
    assert [name for name, _ in cases] == [f"{name}, {h}x{w}" for h, w in sizes for name in names]
    for _, case in cases:
        assert tuple(case[contract.VALID_HW][0]) == case[contract.PIXELS].shape[2:]
    assert len({case[contract.INPUT_IDS].tobytes() for _, case in cases}) == 2


# what is measured


def growing() -> onnx.ModelProto:
    """X to x^2 to x^4, and the root of x."""
    build = Builder(["n"])
    square = build.add("Mul", build.x, build.x)
    return build.done(build.add("Mul", square, square), build.add("Sqrt", build.x))


NAMES = ["Mul_0_output", "Mul_1_output", "Sqrt_2_output"]


def test_the_largest_magnitude_is_kept_with_the_picture_that_gave_it() -> None:
    cases = [
        ("small", {"x": np.float32([1, 2])}),
        ("large", {"x": np.float32([3, 17])}),
        ("zero", {"x": np.zeros(1, np.float32)}),
    ]
    found = measure_ranges("detector", growing(), NAMES, cases)
    assert [(one.tensor, one.largest, one.picture) for one in found] == [
        ("Mul_0_output", 289.0, "large"),
        ("Mul_1_output", 83521.0, "large"),
        ("Sqrt_2_output", pytest.approx(17**0.5), "large"),
    ]
    assert [one.largest > LARGEST_FP16 for one in found] == [False, True, False]


def test_a_number_that_is_none_counts_as_infinite() -> None:
    for values in ([-4.0], [1.0, -4.0, 3.0], [1.0] * 40 + [-4.0]):  # a maximum of the others is none
        found = measure_ranges("detector", growing(), NAMES, [("negative", {"x": np.float32(values)})])
        assert [one.largest for one in found] == [16.0, 256.0, float("inf")]
    found = measure_ranges("detector", growing(), NAMES, [("infinite", {"x": np.float32([1.0, np.inf, 2.0])})])
    assert [one.largest for one in found] == [float("inf")] * 3


def test_magnitudes_of_negative_numbers_count() -> None:
    build = Builder(["n"])
    model = build.done(build.add("Neg", build.x))
    [found] = measure_ranges("detector", model, ["Neg_0_output"], [("one", {"x": np.float32([70000.0, 1])})])
    assert found.largest == 70000.0


@pytest.mark.parametrize("name", GRAPHS)
def test_every_tensor_of_the_fp16_variant_is_measured(onnx_folder: Path, name: str) -> None:
    model = onnx.load(onnx_folder / f"{name}.onnx")
    measured = set(fp16_tensors(model))
    variant = lowered(model)
    types = types_of_computing(variant)
    computed = {node.output[0].removesuffix("_low") for node in variant.graph.node if types.get(node.name) == "FLOAT16"}
    # What stays FP32 is rounded where an operator of FP16 takes it: such a cast overflows too.
    rounded = {
        node.input[0]
        for node in variant.graph.node
        if node.op_type == "Cast" and node.attribute[0].i == onnx.TensorProto.FLOAT16
    }
    assert measured == computed | rounded
    known = {one for node in model.graph.node for one in node.output} | {one.name for one in model.graph.input}
    assert measured <= known
    assert len(computed) > 50
    assert rounded


# the demo, and a demo that overflows


def test_the_demo_does_not_overflow_at_its_largest_sizes(onnx_folder: Path) -> None:
    found = scan_ranges(onnx_folder, [(128, 256), (480, 32)], (16, 32))
    assert found == sorted(found, key=lambda one: -one.largest)
    assert {one.graph for one in found} == set(GRAPHS)
    assert all(one.largest >= 0 for one in found)
    assert found[0].largest < LARGEST_FP16, found[0]
    assert found[0].largest > 9_000  # the masks' -10,000: these tensors are among those measured
    assert len({one.picture for one in found}) > 5


def test_a_detector_that_overflows_is_found_with_the_tensor_and_the_picture(onnx_folder: Path, tmp_path: Path) -> None:
    for name in GRAPHS:
        shutil.copyfile(onnx_folder / f"{name}.onnx", tmp_path / f"{name}.onnx")
    path = tmp_path / f"{contract.MODEL_DETECTOR}.onnx"
    graph = gs.import_onnx(onnx.load(path))
    [product] = [node for node in graph.nodes if node.name == "/encoder/layers.0/linear1/MatMul"]
    weight = product.inputs[1].values
    product.inputs[1].values = weight * np.float32(6e4) / np.abs(weight).max()  # FP16 holds it, but not the sums
    onnx.save(gs.export_onnx(graph), path)
    [broken, *_] = [one for one in scan_ranges(tmp_path, [HW], (16,)) if "encoder/layers.0/linear1" in one.tensor]
    assert broken.largest > LARGEST_FP16
    assert broken.picture.endswith("96x128")

    # And FP16 does overflow there, though FP32 does not.
    onnx.save(emulate_in_fp32(lowered(onnx.load(path))), path)
    [(_, case), *_] = adversarial_cases([HW], ("cat .",), (16,))
    assert not np.isfinite(OnnxStage(tmp_path)(case).logits).all()


# the report

FOUND = [
    Range(graph="detector", tensor=f"tensor_{index}", largest=100.0 - index, picture="white, 96x128")
    for index in range(30)
]


def test_the_table_has_the_largest_first_and_where_fp16_ends() -> None:
    head, first, *_, last = format_ranges(FOUND).splitlines()
    assert head.split() == ["tensor", "largest", "picture"]
    assert first.split() == ["detector:", "tensor_0", "100.0", "white,", "96x128"]
    assert last == "30 tensors; FP16 ends at 65504"


def test_the_file_has_all_tensors(tmp_path: Path) -> None:
    write_ranges(FOUND, tmp_path / "ranges.json")
    rows = json.loads((tmp_path / "ranges.json").read_text(encoding="utf-8"))
    assert len(rows) == 30
    assert rows[0] == {"graph": "detector", "tensor": "tensor_0", "largest": 100.0, "picture": "white, 96x128"}
    assert [path.name for path in tmp_path.iterdir()] == ["ranges.json"]
