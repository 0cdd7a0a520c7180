"""Measure how far a runner's answers are from the original's, which the golden holds.

matched  The runner chooses its own proposals. Each of the original's best queries, best first, is matched with the
         query nearest to it among those not yet taken, and is found if that is within MATCH. Exchanged proposals that
         tie change all answers a little, as queries look at each other: hence no tighter.
forced   The runner is given the original's proposals, if it takes any (see `parity`): then FP32 agrees to rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gdino_build.against_original import compare_forced, golden_inputs
from gdino_build.golden import Answer, Case, Golden
from gdino_build.gpu_check.runner import CAPTION
from gdino_build.parity import (
    PROPOSAL_SCORES,
    PROPOSALS,
    Array,
    Arrays,
    Difference,
    Floats,
    ForcedAnswers,
    Ints,
    Tolerance,
)
from gdino_build.verify_report import TOLERANCE
from gdino_core.contract import BOXES_CXCYWH, LOGITS

MATCH = Tolerance(logit=0.5, box=0.01)  # at most 0.125 in a score, and a hundredth of the picture
LEAST_FOUND = 0.98  # of FP32: of Swin-T with random weights, whose proposals tie most, ONNX Runtime finds 598 of 600

Ask = Callable[[Arrays], Arrays]


@dataclass(frozen=True, kw_only=True)
class Matched:
    """How many of the original's best queries were found, and how far from the original these are in the median."""

    queries: int
    found: int
    median_logit: float
    median_box: float


@dataclass(frozen=True, kw_only=True)
class Compared:
    """How far a runner is from the original in one precision at one batch size.

    Attributes:
        cases: pictures.
        matched: with its own proposals.
        forced: the largest differences with the original's proposals; None where it takes none.
        passed: whether FP32 is as near as it must be; None for a lower precision, which accuracy judges.
    """

    cases: int
    matched: Matched
    forced: Difference | None
    passed: bool | None


def compare_with_golden(golden: Golden, ask: Ask, *, batch: int, precision: str, can_force: bool) -> Compared:
    """Ask a runner about every picture of a golden, repeated to fill a batch.

    Args:
        golden: the original's answers; of its cases at least one.
        ask: runs the runner.
        batch: pictures in a batch; all must be answered alike.
        precision: of the runner.
        can_force: whether it takes proposals.
    """

    def ask_forced(inputs: Arrays, proposals: Ints) -> ForcedAnswers:
        outputs = ask(_repeated({**inputs, PROPOSALS: proposals}, batch))
        return ForcedAnswers(
            logits=outputs[LOGITS], boxes=outputs[BOXES_CXCYWH], scores=outputs[PROPOSAL_SCORES].astype(np.float64)
        )

    offs = []
    for case, answer in golden.cases:
        outputs = ask(_repeated({**golden_inputs(case, answer), CAPTION: np.array([case.caption])}, batch))
        for logits, boxes in zip(outputs[LOGITS], outputs[BOXES_CXCYWH], strict=True):
            offs.append(match_queries(answer, logits, boxes))
    found = np.concatenate(offs)
    median_logit, median_box = np.median(found, axis=0) if len(found) else (np.inf, np.inf)
    matched = Matched(
        queries=batch * sum(len(answer.queries) for _, answer in golden.cases),
        found=len(found),
        median_logit=float(median_logit),
        median_box=float(median_box),
    )
    forced = compare_forced(golden, ask_forced) if can_force else None
    is_near = matched.found >= LEAST_FOUND * matched.queries and (forced is None or forced.within(TOLERANCE))
    passed = is_near if precision == "fp32" else None
    return Compared(cases=len(golden.cases), matched=matched, forced=forced, passed=passed)


def match_queries(answer: Answer, logits: Floats, boxes: Floats) -> Floats:
    """Match the queries of the original with those of a runner, one to one.

    Args:
        answer: the original's, logits [K,T] and boxes [K,4], best first.
        logits: float32 [Q,T], of the runner.
        boxes: float32 [Q,4], of the runner.

    Returns:
        float32 [n,2]: the largest differences in logits and in boxes of each query that was found.
    """
    real = answer.phrase_ids >= 0
    is_taken = np.zeros(len(boxes), bool)
    found = []
    for wanted_logits, wanted_box in zip(answer.logits, answer.boxes, strict=True):
        logit_off = np.abs(logits[:, real] - wanted_logits[real]).max(axis=1)
        box_off = np.abs(boxes - wanted_box).max(axis=1)
        distance = np.maximum(logit_off / MATCH.logit, box_off / MATCH.box)
        distance[is_taken | np.isnan(distance)] = np.inf
        nearest = int(distance.argmin())
        if distance[nearest] <= 1:
            is_taken[nearest] = True
            found.append((logit_off[nearest], box_off[nearest]))
    return np.array(found, np.float32).reshape(-1, 2)


def cases_within(golden: Golden, frames: Sequence[tuple[int, int]], tokens: int) -> Golden:
    """The cases whose frame fits into one of some frames (H, W), and whose prompt has at most so many tokens."""

    def fits(case: Case, answer: Answer) -> bool:
        height, width = case.padded_hw
        return len(answer.input_ids) <= tokens and any(height <= h and width <= w for h, w in frames)

    return replace(golden, cases=tuple((case, answer) for case, answer in golden.cases if fits(case, answer)))


def _repeated(inputs: Arrays, batch: int) -> dict[str, Array]:
    return {name: np.repeat(value, batch, axis=0) for name, value in inputs.items()}
