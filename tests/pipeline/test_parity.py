"""The comparison of two stages: fair where proposals tie, and blind to nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from gdino_build.parity import (
    NO_DIFFERENCE,
    Answers,
    Arrays,
    Difference,
    ForcedAnswers,
    Ints,
    Tolerance,
    as_reference,
    compare,
    count_unmatched,
    difference,
)

TOLERANCE = Tolerance(logit=1e-4, box=1e-5)
SCORES = np.array([[0.1, 3.0, 2.0, 2.00001, 1.0, -5.0]], np.float32)
PROPOSALS = np.array([[1, 3, 2]])
PHRASE_IDS = np.array([[0, 1, 2, -1]], np.int32)


def answers(*, proposals: Ints = PROPOSALS) -> Answers:
    rng = np.random.default_rng(0)
    return Answers(
        logits=rng.standard_normal((1, 3, 4), dtype=np.float32),
        boxes=rng.random((1, 3, 4), dtype=np.float32),
        proposals=proposals,
    )


def forced() -> ForcedAnswers:
    return ForcedAnswers(logits=answers().logits, boxes=answers().boxes, scores=SCORES)


def changed(array: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


def test_equal_answers_pass() -> None:
    found = difference(answers(), forced(), PHRASE_IDS)
    assert found == NO_DIFFERENCE
    assert found.within(TOLERANCE)


@pytest.mark.parametrize(
    ("proposals", "unmatched"),
    [
        ([1, 3, 2], 0),
        ([1, 2, 3], 0),  # 2.0 and 2.00001 tie
        ([3, 1, 2], 2),  # 3.0 and 2.00001 do not
        ([1, 3, 4], 1),  # one of the best left out
        ([1, 3, 3], 1),  # the same token twice, though its score ties
        ([5, 5, 5], 5),
    ],
)
def test_only_proposals_that_tie_may_swap(proposals: list[int], unmatched: int) -> None:
    assert count_unmatched(np.array([proposals]), SCORES) == unmatched
    found = difference(answers(proposals=np.array([proposals])), forced(), PHRASE_IDS)
    assert found.within(TOLERANCE) == (unmatched == 0)


def test_ties_are_relative_to_the_size_of_the_scores() -> None:
    scores = np.array([[1000.0, 999.95, 3.0, 2.9]], np.float32)
    assert count_unmatched(np.array([[1, 0, 2]]), scores) == 0
    assert count_unmatched(np.array([[0, 1, 3]]), scores) == 1


def test_each_picture_of_a_batch_is_counted() -> None:
    scores = np.concatenate((SCORES, SCORES))
    assert count_unmatched(np.array([[1, 3, 2], [1, 3, 0]]), scores) == 1


def test_a_logit_that_is_off_does_not_pass() -> None:
    candidate = replace(answers(), logits=answers().logits + np.float32(2e-4))
    found = difference(candidate, forced(), PHRASE_IDS)
    assert found.max_abs_logit == pytest.approx(2e-4, rel=1e-2)
    assert not found.within(TOLERANCE)


def test_a_box_that_is_off_does_not_pass() -> None:
    boxes = answers().boxes
    candidate = replace(answers(), boxes=changed(boxes, (0, 2, 3), boxes[0, 2, 3] + 2e-5))
    found = difference(candidate, forced(), PHRASE_IDS)
    assert found.max_abs_box == pytest.approx(2e-5, rel=1e-1)
    assert not found.within(TOLERANCE)


def test_what_padding_tokens_score_is_ignored() -> None:
    candidate = replace(answers(), logits=changed(answers().logits, (0, 1, 3), -1e4))
    assert difference(candidate, forced(), PHRASE_IDS) == NO_DIFFERENCE
    all_real = np.array([[0, 1, 2, 3]], np.int32)
    assert not difference(candidate, forced(), all_real).within(TOLERANCE)


@pytest.mark.parametrize("field", ["logits", "boxes"])
def test_a_nan_never_passes(field: str) -> None:
    broken = changed(getattr(answers(), field), (0, 1, 0), np.nan)
    assert not difference(replace(answers(), **{field: broken}), forced(), PHRASE_IDS).within(TOLERANCE)
    assert not difference(answers(), replace(forced(), **{field: broken}), PHRASE_IDS).within(TOLERANCE)
    lenient = Tolerance(logit=np.inf, box=np.inf)
    assert not difference(replace(answers(), **{field: broken}), forced(), PHRASE_IDS).within(lenient)


def test_a_reference_that_scores_nan_explains_no_proposal() -> None:
    assert count_unmatched(PROPOSALS, np.full_like(SCORES, np.nan)) == 3


def test_the_worst_of_two_keeps_the_larger_numbers_and_adds_the_queries() -> None:
    one = Difference(max_abs_logit=1.0, max_abs_box=0.1, unmatched_queries=1)
    other = Difference(max_abs_logit=0.5, max_abs_box=0.2, unmatched_queries=2)
    assert one.worst(other) == Difference(max_abs_logit=1.0, max_abs_box=0.2, unmatched_queries=3)


@pytest.mark.parametrize("order", [1, -1])
def test_a_nan_in_any_case_stays_the_worst(order: int) -> None:
    nan = replace(NO_DIFFERENCE, max_abs_logit=float("nan"))
    first, last = [nan, replace(NO_DIFFERENCE, max_abs_logit=1.0)][::order]
    assert np.isnan(first.worst(last).max_abs_logit)


def test_the_reference_is_given_the_candidates_own_proposals_case_by_case() -> None:
    given: list[tuple[str, list[list[int]]]] = []
    cases: list[Arrays] = [{"PHRASE_IDS": PHRASE_IDS, "NAME": np.array(name)} for name in ("first", "second")]

    def candidate(inputs: Arrays) -> Answers:
        return answers(proposals=PROPOSALS if inputs["NAME"] == "first" else np.array([[1, 2, 3]]))

    def reference(inputs: Arrays, proposals: Ints) -> ForcedAnswers:
        given.append((str(inputs["NAME"]), proposals.tolist()))
        return forced()

    assert compare(candidate, reference, cases) == NO_DIFFERENCE
    assert given == [("first", [[1, 3, 2]]), ("second", [[1, 2, 3]])]


# a stage as the reference of another: the same proposals in the same order, without ties


def against_itself(found: list[list[int]], expected: list[list[int]]) -> Difference:
    cases: list[Arrays] = [{"PHRASE_IDS": np.repeat(PHRASE_IDS, len(found), 0)}]
    stages = [lambda _, chosen=chosen: answers(proposals=np.array(chosen)) for chosen in (found, expected)]
    return compare(stages[0], as_reference(stages[1]), cases)


def test_a_stage_that_chooses_the_same_in_the_same_order_passes() -> None:
    assert against_itself([[1, 3, 2]], [[1, 3, 2]]) == NO_DIFFERENCE
    assert against_itself([[1, 3, 2], [0, 2, 5]], [[1, 3, 2], [0, 2, 5]]) == NO_DIFFERENCE


@pytest.mark.parametrize(
    ("found", "unmatched"),
    [
        ([[1, 2, 3]], 2),  # in another order, though the scores might tie
        ([[1, 3, 0]], 1),  # a token that the other stage did not choose
        ([[1, 3, 77]], 1),  # nor has any score for
        ([[1, 3, 3]], 2),  # twice the same
    ],
)
def test_any_other_choice_is_unmatched(found: list[list[int]], unmatched: int) -> None:
    assert against_itself(found, [[1, 3, 2]]).unmatched_queries == unmatched


def test_the_choice_of_one_picture_does_not_stand_for_another() -> None:
    assert against_itself([[1, 3, 2], [1, 3, 2]], [[1, 3, 2], [0, 2, 5]]).unmatched_queries == 3


def test_hundreds_of_queries_later_a_swap_is_still_seen() -> None:
    order = list(range(900))
    swapped = [*order[:-2], 899, 898]
    assert against_itself([order], [order]).unmatched_queries == 0
    assert against_itself([swapped], [order]).unmatched_queries == 2


def test_numbers_are_compared_as_they_are() -> None:
    candidate, other = answers(), replace(answers(), logits=answers().logits + np.float32(2e-4))
    found = compare(lambda _: candidate, as_reference(lambda _: other), [{"PHRASE_IDS": PHRASE_IDS}])
    assert found.max_abs_logit == pytest.approx(2e-4, rel=1e-2)
    assert (found.max_abs_box, found.unmatched_queries) == (0.0, 0)
