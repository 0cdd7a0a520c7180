"""verify.json says which stage was compared with which, on what, and whether it passed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gdino_build.against_original import compare_forced, compare_free, find_golden, in_buckets
from gdino_build.golden import Answer, Case, Golden, load_golden, reframe, save_golden, tokens_in_frame
from gdino_build.model import GroundingDino
from gdino_build.parity import (
    NO_DIFFERENCE,
    Answers,
    Arrays,
    Difference,
    ForcedAnswers,
    Ints,
    Stage,
    Tolerance,
    as_reference,
    compare,
)
from gdino_build.profile import load_profile
from gdino_build.served import DETECTION_OPTIONS, detections_difference
from gdino_build.stages import TorchStage
from gdino_build.verify import picture_cases
from gdino_build.verify_report import TABLE_HEAD, TOLERANCE, Row, format_row, write_rows
from gdino_client import Detections
from gdino_core import contract
from gdino_core.detections import DetectionArrays
from gdino_core.prompt import encode_prompt

SMALL = Difference(max_abs_logit=3e-6, max_abs_box=2e-7, unmatched_queries=0)
ROW = Row(stage="onnx", against="torch", cases=4, difference=SMALL, tolerance=TOLERANCE)
CASE = Case(name="tiny", seed=3, picture_hw=(60, 100), valid_hw=(30, 50), padded_hw=(32, 64), caption="cat .")


def tiny_golden() -> Golden:
    prompt = encode_prompt((CASE.caption,), (4,))
    answer = Answer(
        input_ids=prompt.input_ids,
        position_ids=prompt.position_ids,
        phrase_ids=prompt.phrase_ids,
        pixels_sha256=np.array("0" * 64),
        text_features=np.ones((4, 8), np.float32),
        queries=np.array([1], np.int32),
        logits=np.ones((1, 4), np.float32),
        boxes=np.ones((1, 4), np.float32),
        proposals=np.array([5, 3], np.int32),
        proposal_scores=np.array([2.0, 1.0], np.float32),
        runner_ups=np.array([4], np.int32),
        runner_up_scores=np.array([0.5], np.float32),
    )
    return Golden(model="tiny", weights_sha256="1" * 64, made_with="hand", cases=((CASE, answer),))


# the cases


@pytest.mark.parametrize("sizes", [((160, 160), (160, 288), (288, 160)), ((96, 128),)])
def test_there_is_a_whole_picture_of_each_size_and_a_mixed_batch(sizes: tuple[tuple[int, int], ...]) -> None:
    *whole, mixed = picture_cases(sizes, (16, 32))
    assert [case[contract.PIXELS].shape for case in whole] == [(1, 3, height, width) for height, width in sizes]
    assert [tuple(case[contract.VALID_HW][0]) for case in whole] == list(sizes)
    assert mixed[contract.PIXELS].shape == (2, 3, *sizes[0])
    (first_h, first_w), (second_h, second_w) = mixed[contract.VALID_HW].tolist()
    assert first_h == sizes[0][0] and first_w < sizes[0][1]
    assert second_h < sizes[0][0] and second_w == sizes[0][1]
    assert (mixed[contract.PHRASE_IDS][0] != mixed[contract.PHRASE_IDS][1]).any()


def test_cases_are_pictures_padded_with_black_and_prompts_padded_to_a_bucket() -> None:
    for case in picture_cases(((96, 128), (128, 96)), (16, 32)):
        assert case[contract.PIXELS].dtype == np.uint8
        for name in (contract.INPUT_IDS, contract.POSITION_IDS, contract.PHRASE_IDS):
            assert case[name].dtype == np.int32
            assert case[name].shape == (len(case[contract.PIXELS]), 16)
        for pixels, (height, width) in zip(case[contract.PIXELS], case[contract.VALID_HW], strict=True):
            assert pixels[:, :height, :width].std() > 10
            assert not pixels[:, height:].any()
            assert not pixels[:, :, width:].any()


def test_cases_are_the_same_on_every_call() -> None:
    for one, other in zip(*(picture_cases(((96, 128),), (16,)) for _ in range(2)), strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


# rows


def test_verify_json_has_the_keys_that_others_read(tmp_path: Path) -> None:
    write_rows([ROW], tmp_path / "out" / "verify.json")
    assert json.loads((tmp_path / "out" / "verify.json").read_text(encoding="utf-8")) == [
        {
            "stage": "onnx",
            "against": "torch",
            "cases": 4,
            "max_abs_logit": 3e-6,
            "max_abs_box": 2e-7,
            "unmatched_queries": 0,
            "tolerance": {"logit": 1e-4, "box": 1e-5},
            "passed": True,
        }
    ]


def test_verify_json_stays_json_when_a_stage_answers_nan(tmp_path: Path) -> None:
    nan = replace(ROW, difference=replace(SMALL, max_abs_logit=float("nan"), max_abs_box=float("inf")))
    write_rows([nan], tmp_path / "verify.json")
    text = (tmp_path / "verify.json").read_text(encoding="utf-8")
    [row] = json.loads(text, parse_constant=pytest.fail)
    assert (row["max_abs_logit"], row["max_abs_box"], row["passed"]) == (None, None, False)


def test_verify_json_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "verify.json").write_text("older", encoding="utf-8")
    unwritable = replace(ROW, cases=object())
    with pytest.raises(TypeError):
        write_rows([ROW, replace(unwritable, difference=SMALL)], tmp_path / "verify.json")
    assert (tmp_path / "verify.json").read_text(encoding="utf-8") == "older"


@pytest.mark.parametrize(
    "failed",
    [
        replace(ROW, difference=replace(SMALL, max_abs_logit=1.1e-4)),
        replace(ROW, difference=replace(SMALL, max_abs_box=1.1e-5)),
        replace(ROW, difference=replace(SMALL, unmatched_queries=1)),
        replace(ROW, difference=replace(SMALL, max_abs_box=float("nan"))),
        replace(ROW, cases=0),
    ],
)
def test_a_row_fails_for_any_one_reason(failed: Row) -> None:
    assert ROW.passed
    assert not failed.passed
    assert failed.to_dict()["passed"] is False
    assert "FAILED" in format_row(failed)
    assert "FAILED" not in format_row(ROW)


def test_the_difference_of_a_lower_precision_is_told_and_judged_elsewhere(tmp_path: Path) -> None:
    far = replace(SMALL, max_abs_logit=3.0, max_abs_box=0.5, unmatched_queries=70)
    told = replace(ROW, stage="engine", against="cleaned", difference=far, tolerance=None)
    assert told.passed
    assert format_row(told).split() == ["engine", "cleaned", "4", "3.0e+00", "5.0e-01", "70", "told"]
    write_rows([told], tmp_path / "verify.json")
    [row] = json.loads((tmp_path / "verify.json").read_text(encoding="utf-8"))
    assert (row["tolerance"], row["max_abs_box"], row["unmatched_queries"]) == (None, 0.5, 70)


def test_a_difference_that_is_told_without_a_case_fails_all_the_same() -> None:
    nothing = replace(ROW, cases=0, tolerance=None)
    assert not nothing.passed
    assert "FAILED" in format_row(nothing)


def test_what_a_lower_precision_serves_must_be_what_its_engine_computes() -> None:
    def engine(shift: float, proposals: list[int]) -> Stage:
        logits, boxes = np.full((1, 3, 4), 1 + shift, np.float32), np.full((1, 3, 4), 0.5, np.float32)
        return lambda _: Answers(logits=logits, boxes=boxes, proposals=np.array([proposals]))

    def served_row(served: Stage) -> Row:
        cases: list[Arrays] = [{contract.PHRASE_IDS: np.zeros((1, 4), np.int32)}]
        return replace(ROW, difference=compare(served, as_reference(engine(0, [4, 9, 2])), cases))

    assert served_row(engine(0, [4, 9, 2])).passed
    assert not served_row(engine(2e-4, [4, 9, 2])).passed
    assert not served_row(engine(0, [4, 2, 9])).passed
    assert not served_row(engine(0, [4, 9, 11])).passed
    assert not served_row(engine(float("nan"), [4, 9, 2])).passed


def test_the_line_of_a_row_stands_below_the_head_of_the_table() -> None:
    assert TABLE_HEAD.split() == ["stage", "against", "cases", "logit", "box", "unmatched", "result"]
    assert format_row(ROW).split() == ["onnx", "torch", "4", "3.0e-06", "2.0e-07", "0", "passed"]
    assert format_row(ROW).index("passed") == TABLE_HEAD.index("result")


# comparing


def forced_answers(inputs: Arrays, proposals: Ints) -> ForcedAnswers:
    assert inputs[contract.PIXELS].shape == (1, 3, 32, 64)
    assert inputs[contract.VALID_HW].tolist() == [[30, 50]]
    assert inputs[contract.INPUT_IDS].tolist() == [[101, 4937, 1012, 102]]
    assert inputs[contract.PHRASE_IDS].tolist() == [[0, 1, 1, 2]]
    logits = np.array([[[9.0] * 4, [1.5] * 4]])  # the golden keeps the second query alone
    return ForcedAnswers(logits=logits, boxes=np.ones((1, 2, 4)), scores=np.array([[0, 0, 0, 1.0, 0, 2.0]]))


def test_a_comparison_keeps_the_worst_of_all_cases() -> None:
    proposals = np.array([[1, 0]])

    def candidate(case: Arrays) -> Answers:
        return Answers(logits=case["LOGITS"], boxes=np.ones((1, 2, 4)), proposals=proposals)

    def reference(_: Arrays, forced: Ints) -> ForcedAnswers:
        assert forced is proposals
        return ForcedAnswers(logits=np.ones((1, 2, 4)), boxes=np.ones((1, 2, 4)), scores=np.array([[1.0, 2.0]]))

    ids = np.zeros((1, 4), np.int32)
    cases: list[Arrays] = [{contract.PHRASE_IDS: ids, "LOGITS": np.full((1, 2, 4), value)} for value in (1, 3, 2)]
    assert compare(candidate, reference, cases) == replace(NO_DIFFERENCE, max_abs_logit=2.0)


def test_the_model_is_given_the_originals_picture_prompt_and_proposals() -> None:
    def stage(inputs: Arrays, proposals: Ints) -> ForcedAnswers:
        assert proposals.tolist() == [[5, 3]]
        return forced_answers(inputs, proposals)

    assert compare_forced(tiny_golden(), stage) == replace(NO_DIFFERENCE, max_abs_logit=0.5)


@pytest.mark.parametrize(
    ("proposals", "logit", "unmatched"),
    [
        ([5, 3], 6.0, 0),  # as the original chose: compared with the original
        ([5, 4], 5.5, 0),  # 4 ties with 3 in the original's scores: compared with the module given these proposals
        ([3, 5], 5.5, 2),  # no tie
        ([5, 1], 5.5, 1),  # a token that came not even near
    ],
)
def test_a_stage_that_chooses_itself_may_exchange_only_proposals_that_tie(
    proposals: list[int], logit: float, unmatched: int
) -> None:
    golden = tiny_golden()
    [(case, answer)] = golden.cases
    tied = replace(answer, runner_up_scores=np.array([1.0 - 1e-6], np.float32))

    def stage(_: Arrays) -> Answers:
        logits = np.array([[[0.0] * 4, [7.0] * 4]])
        return Answers(logits=logits, boxes=np.ones((1, 2, 4)), proposals=np.array([proposals]))

    found = compare_free(replace(golden, cases=((case, tied),)), stage, forced_answers)
    assert (found.max_abs_logit, found.unmatched_queries) == (logit, unmatched)


def test_a_pictures_tokens_are_numbered_as_in_its_frame() -> None:
    # 9x17 pixels are 2x3, 1x2, 1x1 and 1x1 cells; the frame of 32x64 has 4x8, 2x4, 1x2 and 1x1.
    tokens = np.arange(6 + 2 + 1 + 1, dtype=np.int32)
    expected = [0, 1, 2, 8, 9, 10, 32, 33, 40, 42]
    assert tokens_in_frame(tokens, (9, 17), (32, 64)).tolist() == expected
    assert tokens_in_frame(tokens[::-1], (9, 17), (32, 64)).tolist() == expected[::-1]


def test_the_tolerances_are_those_of_the_specification() -> None:
    assert Tolerance(logit=1e-4, box=1e-5) == TOLERANCE


# golden files


def test_a_server_is_sent_what_its_buckets_hold_in_its_frames(demo_model: GroundingDino) -> None:
    golden = load_golden(Path("tests/goldens/demo_random.npz"))  # the fixture's weights
    framed = in_buckets(golden, load_profile("demo-cpu").preprocess)
    names = [case.name for case, _ in framed.cases]
    assert names == ["small", "lost_in_its_frame", "border", "photo", "phone_portrait"]
    assert {case.padded_hw for case, _ in framed.cases} == {(128, 128), (160, 128), (32, 480), (128, 192), (192, 128)}
    found = compare_forced(framed, TorchStage(demo_model).forced)
    assert found.max_abs_logit <= TOLERANCE.logit
    assert found.max_abs_box <= TOLERANCE.box
    assert not found.unmatched_queries


def test_tokens_keep_their_places_in_another_frame() -> None:
    [*_, (case, answer)] = load_golden(Path("tests/goldens/demo_checkpoint.npz")).cases
    moved = reframe(case, answer, (256, 384))
    assert not np.array_equal(moved[1].proposals, answer.proposals)
    back_case, back = reframe(*moved, case.padded_hw)
    assert back_case == case
    np.testing.assert_array_equal(back.proposals, answer.proposals)
    np.testing.assert_array_equal(back.runner_ups, answer.runner_ups)


def test_a_golden_is_read_as_it_was_written(tmp_path: Path) -> None:
    golden = tiny_golden()
    save_golden(golden, tmp_path / "tiny.npz")
    found = load_golden(tmp_path / "tiny.npz")
    assert (found.model, found.weights_sha256, found.made_with) == ("tiny", "1" * 64, "hand")
    [(case, answer)] = found.cases
    assert case == CASE
    for name, expected in vars(golden.cases[0][1]).items():
        np.testing.assert_array_equal(getattr(answer, name), expected)


def test_the_golden_of_just_these_weights_is_found_among_others(tmp_path: Path) -> None:
    save_golden(replace(tiny_golden(), weights_sha256="0" * 64, model="other"), tmp_path / "a.npz")
    save_golden(tiny_golden(), tmp_path / "b.npz")
    found = find_golden(tmp_path, "1" * 64)
    assert found is not None
    assert found.model == "tiny"
    assert find_golden(tmp_path, "2" * 64) is None
    assert find_golden(tmp_path / "nowhere", "1" * 64) is None


# detections


LABELS = ("cat", "dog", "cat")
SCORES = (0.9, 0.50001, 0.5)
BOXES = np.array([[0, 0, 50, 20], [10, 0, 60, 20], [20, 0, 70, 20]], np.float32)


def expected_detections(labels: tuple[str, ...] = LABELS, scores: tuple[float, ...] = SCORES) -> DetectionArrays:
    index = np.full(len(labels), -1, np.int32)
    boxes = np.resize(BOXES, (len(labels), 4))
    return DetectionArrays(
        boxes_xyxy=boxes, scores=np.array(scores, np.float32), labels=list(labels), label_index=index
    )


def found_detections(order: tuple[int, ...] = (0, 1, 2), **changes: object) -> Detections:
    same = expected_detections()
    values: dict[str, Any] = {
        "boxes_xyxy": same.boxes_xyxy[list(order)],
        "scores": same.scores[list(order)],
        "labels": tuple(same.labels[place] for place in order),
        "label_index": same.label_index[list(order)],
        "image_hw": (20, 100),
        "prompt": ("cat", "dog"),
    }
    return Detections(**values | changes)


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)])
def test_detections_whose_scores_tie_may_come_in_another_order(order: tuple[int, ...]) -> None:
    found = detections_difference(found_detections(order), expected_detections())
    assert found == Difference(max_abs_logit=0.0, max_abs_box=0.0, unmatched_queries=0)


def test_of_equal_boxes_the_one_with_the_nearest_score_is_the_counterpart() -> None:
    labels, box = ("cat",) * 3, np.resize(BOXES[0], (3, 4))
    scores = np.float32([0.50003, 0.50001, 0.49999])  # the first and the last are apart by more than the tolerance
    same = replace(expected_detections(labels), boxes_xyxy=box, scores=scores)
    found = found_detections(labels=labels, boxes_xyxy=box, scores=scores)
    assert detections_difference(found, same) == Difference(max_abs_logit=0.0, max_abs_box=0.0, unmatched_queries=0)
    reordered = found_detections(labels=labels, boxes_xyxy=box, scores=scores[[1, 0, 2]])
    assert detections_difference(reordered, same).unmatched_queries == 0


def test_boxes_differ_by_fractions_of_the_picture() -> None:
    shifted = found_detections(boxes_xyxy=BOXES + np.float32([[0] * 4, [0] * 4, [0, 0, 5, 1]]))
    assert detections_difference(shifted, expected_detections()).max_abs_box == pytest.approx(0.05)


def test_scores_differ_as_logits() -> None:
    found = detections_difference(found_detections(scores=np.float32([0.9, 0.50001, 0.50002])), expected_detections())
    assert found.max_abs_logit == pytest.approx(8e-5, rel=1e-2)
    assert found.unmatched_queries == 0


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(found_detections(scores=np.float32([0.91, 0.50001, 0.5])), id="another score"),
        pytest.param(found_detections(labels=("cat", "dog", "dog")), id="another label"),
    ],
)
def test_a_detection_without_a_counterpart_leaves_one_unmatched_on_either_side(found: Detections) -> None:
    assert detections_difference(found, expected_detections()).unmatched_queries == 2


def test_a_detection_that_the_server_lost_is_unmatched() -> None:
    assert detections_difference(found_detections((0, 1)), expected_detections()).unmatched_queries == 1
    assert detections_difference(found_detections(()), expected_detections()).unmatched_queries == 3


def test_spare_detections_below_the_limit_are_not_missed() -> None:
    limit, spare = DETECTION_OPTIONS.max_detections, 2
    labels, scores = ("cat",) * (limit + spare), tuple(np.linspace(0.9, 0.1, limit + spare))
    expected = expected_detections(labels, scores)
    full = found_detections(
        boxes_xyxy=expected.boxes_xyxy[:limit],
        scores=expected.scores[:limit],
        labels=labels[:limit],
        label_index=expected.label_index[:limit],
    )
    assert detections_difference(full, expected).unmatched_queries == 0
    lost = replace(full, boxes_xyxy=full.boxes_xyxy[1:], scores=full.scores[1:], labels=full.labels[1:])
    assert detections_difference(lost, expected).unmatched_queries > 0
