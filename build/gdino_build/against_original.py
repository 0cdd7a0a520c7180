"""Compare a stage with the answers of the original, which golden files hold.

The original saw each picture alone and chose its proposals itself. A stage that can be given proposals is given the
original's. One that cannot, such as a server, may exchange proposals whose scores tie: then it is compared with the
inference module, given the stage's proposals, after each exchange was found to be a tie by the original's own scores.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from gdino_build.golden import Answer, Case, Golden, load_golden, reframe
from gdino_build.parity import (
    NO_DIFFERENCE,
    Answers,
    Arrays,
    Difference,
    ForcedAnswers,
    ForcedStage,
    Ints,
    Stage,
    difference,
)
from gdino_build.served import EXPECTED_OPTIONS, DetectionCase, preprocessed
from gdino_core import contract
from gdino_core.detections import postprocess
from gdino_core.errors import ConfigError
from gdino_core.image import choose_bucket, resized_hw
from gdino_core.prompt import encode_prompt
from gdino_core.settings import PreprocessSettings


def find_golden(folder: Path, weights_sha256: str) -> Golden | None:
    """The golden file that the original made from just these weights, if there is one."""
    goldens = (load_golden(path) for path in sorted(folder.glob("*.npz")))
    return next((golden for golden in goldens if golden.weights_sha256 == weights_sha256), None)


def golden_inputs(case: Case, answer: Answer) -> Arrays:
    """The picture in its frame and its caption, as a batch of one."""
    return {
        contract.PIXELS: np.ascontiguousarray(case.padded_picture().transpose(2, 0, 1))[None],
        contract.VALID_HW: np.array([case.valid_hw], np.int32),
        contract.INPUT_IDS: answer.input_ids[None],
        contract.POSITION_IDS: answer.position_ids[None],
        contract.PHRASE_IDS: answer.phrase_ids[None],
    }


def in_buckets(golden: Golden, settings: PreprocessSettings) -> Golden:
    """The cases whose pictures a bucket holds, each in the frame that a server with these settings gives it."""
    cases = []
    for case, answer in golden.cases:
        try:
            cases.append(reframe(case, answer, choose_bucket(case.valid_hw, settings.resolution_buckets)))
        except ConfigError:  # no bucket holds it
            continue
    return replace(golden, cases=tuple(cases))


def compare_forced(golden: Golden, stage: ForcedStage) -> Difference:
    """Compare the original's answers with those of a stage that is given the original's proposals."""
    worst = NO_DIFFERENCE
    for case, answer in golden.cases:
        inputs = golden_inputs(case, answer)
        original = Answers(
            logits=answer.logits[None], boxes=answer.boxes[None], proposals=answer.proposals[None].astype(np.int64)
        )
        forced = _kept(stage(inputs, original.proposals), answer)
        worst = worst.worst(difference(original, forced, inputs[contract.PHRASE_IDS]))
    return worst


def compare_free(golden: Golden, stage: Stage, module: ForcedStage) -> Difference:
    """Compare a stage that chooses its own proposals with the original.

    Args:
        golden: the original's answers.
        stage: what is compared.
        module: the inference module, which answers for the original where the stage exchanged proposals that tie.
    """
    worst = NO_DIFFERENCE
    for case, answer in golden.cases:
        inputs = golden_inputs(case, answer)
        answers = stage(inputs)
        kept = replace(answers, logits=answers.logits[:, answer.queries], boxes=answers.boxes[:, answer.queries])
        expected = _expected(answer, answers.proposals, inputs, module)
        worst = worst.worst(difference(kept, expected, inputs[contract.PHRASE_IDS]))
    return worst


def original_detection_cases(
    golden: Golden, settings: PreprocessSettings, engine: Stage, module: ForcedStage
) -> Iterator[DetectionCase]:
    """What a client asks, and the detections of the original: of the pictures that the server resizes as the original.

    Args:
        golden: the original's answers.
        settings: of the server's preprocessing.
        engine: tells the proposals that the server chooses.
        module: answers for the original where the engine exchanged proposals; that they tie, `compare_free` tells.
    """
    for case, answer in golden.cases:
        if not _is_resized_alike(case, settings):
            continue
        picture = case.picture()
        inputs, _ = preprocessed(picture, (case.caption,), settings)
        proposals = engine(inputs).proposals
        logits, boxes = answer.logits, answer.boxes
        if not np.array_equal(proposals[0], answer.proposals):
            # All queries: after an exchange others may be among the best than those that the golden keeps.
            forced = module(golden_inputs(case, answer), proposals)
            logits, boxes = forced.logits[0], forced.boxes[0]
        prompt = encode_prompt((case.caption,), (len(answer.input_ids),))
        detections = postprocess(logits, boxes, prompt, case.picture_hw, EXPECTED_OPTIONS)
        yield DetectionCase(picture=picture, texts=(case.caption,), expected=detections)


def _expected(answer: Answer, proposals: Ints, inputs: Arrays, module: ForcedStage) -> ForcedAnswers:
    """The original's answers, and its scores of the image tokens that came near to being proposed."""
    scores = np.full((1, int(max(proposals.max(), answer.proposals.max(), answer.runner_ups.max())) + 1), -np.inf)
    scores[0, answer.proposals] = answer.proposal_scores
    scores[0, answer.runner_ups] = answer.runner_up_scores
    if np.array_equal(proposals[0], answer.proposals):
        return ForcedAnswers(logits=answer.logits[None], boxes=answer.boxes[None], scores=scores)
    return replace(_kept(module(inputs, proposals), answer), scores=scores)


def _kept(forced: ForcedAnswers, answer: Answer) -> ForcedAnswers:
    """Logits and boxes of the queries that the golden keeps."""
    return replace(forced, logits=forced.logits[:, answer.queries], boxes=forced.boxes[:, answer.queries])


def _is_resized_alike(case: Case, settings: PreprocessSettings) -> bool:
    resized = resized_hw(case.picture_hw, settings.short_side, settings.long_side)
    return resized == case.valid_hw and choose_bucket(resized, settings.resolution_buckets) == case.padded_hw
