"""Compare two stages of one model, fairly where TopK ties.

The detector keeps the image tokens that score best as proposals, and gives the n-th proposal the n-th learned query.
Two correct computations may order two proposals differently when their scores agree to rounding, and then all later
numbers differ. So the reference is computed with the candidate's proposals forced upon it, and compared slot by slot;
and each proposal that the reference would not have put into that slot must tie with the one it would have.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gdino_core import contract

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

PROPOSALS = "PROPOSALS"  # int64 [B,Q], image tokens, best first
PROPOSAL_SCORES = "PROPOSAL_SCORES"  # float32 [B,S], of every image token
TIE = 1e-4  # scores closer than this, relative to their size, may swap: FP32 sums in another order differ by as much


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Largest differences that count as equal."""

    logit: float
    box: float


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a stage computed: logits [B,Q,T], boxes [B,Q,4] and the proposals [B,Q] that it chose."""

    logits: Floats
    boxes: Floats
    proposals: Ints


@dataclass(frozen=True, kw_only=True)
class ForcedAnswers:
    """What the reference computed from given proposals, and its own scores [B,S] of all image tokens."""

    logits: Floats
    boxes: Floats
    scores: Floats


Stage = Callable[[Arrays], Answers]
ForcedStage = Callable[[Arrays, Ints], ForcedAnswers]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The largest differences over real tokens and all queries, and the proposals that no tie explains."""

    max_abs_logit: float
    max_abs_box: float
    unmatched_queries: int

    def within(self, tolerance: Tolerance) -> bool:
        """Whether every difference is small; NaN never is."""
        return (
            self.max_abs_logit <= tolerance.logit and self.max_abs_box <= tolerance.box and self.unmatched_queries == 0
        )

    def worst(self, other: "Difference") -> "Difference":
        """The larger of both, number by number (np.maximum keeps NaN)."""
        return Difference(
            max_abs_logit=float(np.maximum(self.max_abs_logit, other.max_abs_logit)),
            max_abs_box=float(np.maximum(self.max_abs_box, other.max_abs_box)),
            unmatched_queries=self.unmatched_queries + other.unmatched_queries,
        )


NO_DIFFERENCE = Difference(max_abs_logit=0.0, max_abs_box=0.0, unmatched_queries=0)


def difference(candidate: Answers, reference: ForcedAnswers, phrase_ids: npt.NDArray[np.int32]) -> Difference:
    """Measure how far a candidate is from a reference that was given its proposals.

    Args:
        candidate: the stage under test.
        reference: the stage before it, computed from `candidate.proposals`.
        phrase_ids: int32 [B,T]; tokens with a negative id are padding and not compared.
    """
    real = (phrase_ids >= 0)[:, None, :]
    return Difference(
        max_abs_logit=float(np.abs(np.where(real, candidate.logits - reference.logits, 0)).max()),
        max_abs_box=float(np.abs(candidate.boxes - reference.boxes).max()),
        unmatched_queries=count_unmatched(candidate.proposals, reference.scores),
    )


def count_unmatched(proposals: Ints, scores: Floats) -> int:
    """Count slots whose proposal scores neither as the reference's choice for the slot, nor within a tie of it.

    Args:
        proposals: int64 [B,Q], image tokens as the candidate chose them; the same token twice counts too.
        scores: float32 [B,S], the reference's scores of all image tokens.
    """
    best = -np.sort(-scores, axis=1)[:, : proposals.shape[1]]
    chosen = np.take_along_axis(scores, proposals, axis=1)
    wrong = ~(np.abs(chosen - best) <= TIE * np.maximum(np.abs(best), 1.0))
    repeated = sum(len(row) - len(np.unique(row)) for row in proposals)
    return int(wrong.sum()) + repeated


def as_reference(stage: Stage) -> ForcedStage:
    """Let a stage be the reference of another that must choose the very same proposals in the same order."""

    def answer(inputs: Arrays, proposals: Ints) -> ForcedAnswers:
        answers = stage(inputs)
        batch, queries = answers.proposals.shape
        tokens = 1 + max(int(answers.proposals.max()), int(proposals.max()))
        ranks = np.full((batch, tokens), -np.inf, np.float32)
        np.put_along_axis(ranks, answers.proposals, -np.arange(queries, dtype=np.float32)[None], axis=1)
        return ForcedAnswers(logits=answers.logits, boxes=answers.boxes, scores=ranks)

    return answer


def compare(candidate: Stage, reference: ForcedStage, cases: Sequence[Arrays]) -> Difference:
    """Run both stages on every case and keep the worst difference.

    Args:
        candidate: the stage under test.
        reference: the stage before it.
        cases: inputs of the text encoder and of the detector but its text features, by contract name.
    """
    worst = NO_DIFFERENCE
    for inputs in cases:
        answers = candidate(inputs)
        forced = reference(inputs, answers.proposals)
        worst = worst.worst(difference(answers, forced, inputs[contract.PHRASE_IDS]))
    return worst
