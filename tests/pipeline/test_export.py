"""The exported graphs hold for every size that the contract allows, not for the traced one."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from gdino_build import export
from gdino_build.export import export_detector, export_text_encoder
from gdino_build.model import DEMO, GroundingDino
from gdino_build.parity import Arrays, Tolerance, difference
from gdino_build.stages import OnnxStage, TorchStage
from gdino_core import contract
from tests.pipeline.inputs import item, make_inputs

TOLERANCE = Tolerance(logit=1e-4, box=1e-5)
# The same sums in another order, or a softmax over more tokens that count for nothing.
NOISE = Tolerance(logit=2e-5, box=2e-6)
SHAPES = "red circle . blue star ."
ANIMALS = "a cat on the left . is it a dog ?"
MIXED = make_inputs((160, 224), ((160, 180), SHAPES), ((121, 224), ANIMALS))


def difference_from_torch(stage: OnnxStage, model: GroundingDino, inputs: Arrays) -> object:
    answers = stage(inputs)
    found = difference(answers, TorchStage(model).forced(inputs, answers.proposals), inputs[contract.PHRASE_IDS])
    assert found.within(TOLERANCE), found
    return found


@pytest.mark.parametrize("padded_hw", [(96, 128), (160, 288), (288, 160)])
def test_the_graphs_answer_as_torch_at_sizes_that_were_not_traced(
    raw_stage: OnnxStage, demo_model: GroundingDino, padded_hw: tuple[int, int]
) -> None:
    assert padded_hw != export._TRACED_HW
    difference_from_torch(raw_stage, demo_model, make_inputs(padded_hw, (padded_hw, SHAPES)))


@pytest.mark.parametrize("tokens", [16, 19, 80])
def test_the_graphs_answer_as_torch_for_prompts_of_any_length(
    raw_stage: OnnxStage, demo_model: GroundingDino, tokens: int
) -> None:
    difference_from_torch(raw_stage, demo_model, make_inputs((96, 128), ((96, 128), ANIMALS), tokens=tokens))


def test_the_graphs_answer_as_torch_for_two_pictures_with_other_prompts_and_padding(
    raw_stage: OnnxStage, demo_model: GroundingDino
) -> None:
    difference_from_torch(raw_stage, demo_model, MIXED)


@pytest.mark.parametrize("index", [0, 1])
def test_a_picture_in_a_batch_is_answered_as_the_same_picture_alone(raw_stage: OnnxStage, index: int) -> None:
    batch = raw_stage(MIXED)
    alone = item(MIXED, index)
    forced = raw_stage.forced(alone, batch.proposals[index : index + 1])
    in_batch = type(batch)(
        logits=batch.logits[index : index + 1],
        boxes=batch.boxes[index : index + 1],
        proposals=batch.proposals[index : index + 1],
    )
    found = difference(in_batch, forced, alone[contract.PHRASE_IDS])
    assert found.within(NOISE), found


def test_pixels_outside_the_valid_size_change_nothing(raw_stage: OnnxStage) -> None:
    noisy = MIXED[contract.PIXELS].copy()
    noise = np.random.default_rng(0).integers(0, 256, noisy.shape, dtype=np.uint8)
    for index, (height, width) in enumerate(MIXED[contract.VALID_HW]):
        noisy[index, :, height:] = noise[index, :, height:]
        noisy[index, :, :, width:] = noise[index, :, :, width:]
    assert (noisy != MIXED[contract.PIXELS]).any()
    clean, other = raw_stage(MIXED), raw_stage({**MIXED, contract.PIXELS: noisy})
    np.testing.assert_array_equal(clean.logits, other.logits)
    np.testing.assert_array_equal(clean.boxes, other.boxes)


def test_pixels_inside_the_valid_size_do_count(raw_stage: OnnxStage) -> None:
    changed = MIXED[contract.PIXELS].copy()
    changed[:, :, :60, :60] = 255 - changed[:, :, :60, :60]
    assert np.abs(raw_stage(MIXED).boxes - raw_stage({**MIXED, contract.PIXELS: changed}).boxes).max() > 1e-3


def test_a_larger_text_bucket_changes_nothing(raw_stage: OnnxStage) -> None:
    pictures = (((160, 180), SHAPES), ((121, 224), ANIMALS))
    small, large = (make_inputs((160, 224), *pictures, tokens=tokens) for tokens in (16, 64))
    answers = raw_stage(large)
    forced = raw_stage.forced(small, answers.proposals)
    cut = type(answers)(logits=answers.logits[..., :16], boxes=answers.boxes, proposals=answers.proposals)
    found = difference(cut, forced, small[contract.PHRASE_IDS])
    assert found.within(NOISE), found


def test_padding_tokens_have_logits_that_no_threshold_lets_through(raw_stage: OnnxStage) -> None:
    logits = raw_stage(MIXED).logits
    padding = MIXED[contract.PHRASE_IDS] < 0
    assert logits.transpose(0, 2, 1)[padding].max() < -1000
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("graph", [contract.MODEL_TEXT_ENCODER, contract.MODEL_DETECTOR])
def test_no_operator_depends_on_values_for_its_shape_or_its_flow(onnx_folder: Path, graph: str) -> None:
    operators = Counter(node.op_type for node in onnx.load(onnx_folder / "raw" / f"{graph}.onnx").graph.node)
    assert not operators.keys() & {"If", "Loop", "Scan", "NonZero", "ScatterND", "ScatterElements", "CumSum"}


def interface(values: list[onnx.ValueInfoProto]) -> dict[str, tuple[str, list[str | int]]]:
    return {
        value.name: (
            onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type),
            [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
        )
        for value in values
    }


def test_the_graphs_have_the_tensors_of_the_contract(onnx_folder: Path) -> None:
    text = onnx.load(onnx_folder / "text_encoder.onnx").graph
    ids = ("INT32", ["batch", "tokens"])
    features = ("FLOAT", ["batch", "tokens", DEMO.hidden_dim])
    assert interface(text.input) == {"INPUT_IDS": ids, "POSITION_IDS": ids, "PHRASE_IDS": ids}
    assert interface(text.output) == {"TEXT_FEATURES": features}
    detector = onnx.load(onnx_folder / "detector.onnx").graph
    assert interface(detector.input) == {
        "PIXELS": ("UINT8", ["batch", 3, "height", "width"]),
        "VALID_HW": ("INT32", ["batch", 2]),
        "TEXT_FEATURES": features,
        "POSITION_IDS": ids,
        "PHRASE_IDS": ids,
    }
    assert interface(detector.output) == {
        "LOGITS": ("FLOAT", ["batch", DEMO.num_queries, "tokens"]),
        "BOXES_CXCYWH": ("FLOAT", ["batch", DEMO.num_queries, 4]),
    }


@pytest.mark.parametrize("export_graph", [export_text_encoder, export_detector])
def test_an_export_that_breaks_off_leaves_the_older_graph_as_it_was(
    demo_model: GroundingDino, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, export_graph: object
) -> None:
    def break_off(_module: object, _inputs: object, path: str, **_: object) -> None:
        Path(path).write_bytes(b"half a graph")
        raise KeyboardInterrupt

    monkeypatch.setattr("torch.onnx.export", break_off)
    (tmp_path / "graph.onnx").write_bytes(b"the older graph")
    with pytest.raises(KeyboardInterrupt):
        export_graph(demo_model, tmp_path / "graph.onnx")
    assert (tmp_path / "graph.onnx").read_bytes() == b"the older graph"
