"""The original mixes up the prompts of a batch; ours answers each picture of a batch as the original does alone."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gdino_build.checkpoint import canonical_state_dict, load_model, read_state_dict
from gdino_build.golden import Answer, Case, load_golden, reframe
from gdino_build.model import DEMO, GroundingDino
from gdino_build.parity import Answers, Array, Arrays, ForcedAnswers, difference
from gdino_build.profile import load_profile
from gdino_build.served import preprocessed
from gdino_build.stages import OnnxStage, TorchStage
from gdino_build.verify_report import TOLERANCE
from gdino_core import contract
from gdino_core.prompt import encode_prompt

ROOT = Path(__file__).parents[2]
BATCH = json.loads((ROOT / "tests" / "goldens" / "batch.json").read_text(encoding="utf-8"))
PROMPTS = [pytest.param(index, id=prompt["caption"]) for index, prompt in enumerate(BATCH["prompts"])]
CASES = load_golden(ROOT / "tests" / "goldens" / "demo_random.npz").cases
FRAME = tuple(max(case.padded_hw[axis] for case, _ in CASES) for axis in (0, 1))
TOKENS = max(len(answer.input_ids) for _, answer in CASES)


def detections(scores: Array, boxes: Array) -> list[dict[str, Any]]:
    """Best first, as batch.json has them."""
    kept = [query for query in np.argsort(-scores) if scores[query] > BATCH["box_threshold"]]
    return [{"score": scores[query], "box": boxes[query]} for query in kept]


def largest_difference(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> dict[str, float]:
    assert len(found) == len(expected) > 0
    pairs = list(zip(found, expected, strict=True))
    return {
        key: max(float(np.abs(np.subtract(one[key], other[key])).max()) for one, other in pairs)
        for key in ("score", "box")
    }


@pytest.fixture(scope="module")
def one_picture_with_all_prompts() -> list[list[dict[str, Any]]]:
    """What ours finds in the picture of batch.json, all its prompts in one batch."""
    model = load_model(DEMO, canonical_state_dict(read_state_dict(ROOT / "demo" / "checkpoint.safetensors")))
    picture = np.asarray(Image.open(ROOT / BATCH["picture"]).convert("RGB"))
    settings = replace(load_profile("demo-cpu").preprocess, text_buckets=(32,))
    asked = [preprocessed(picture, (prompt["caption"],), settings)[0] for prompt in BATCH["prompts"]]
    answers = TorchStage(model)({name: np.concatenate([inputs[name] for inputs in asked]) for name in asked[0]})
    scores = 1 / (1 + np.exp(-answers.logits.max(-1)))
    return [detections(*pair) for pair in zip(scores, answers.boxes, strict=True)]


@pytest.mark.parametrize("index", PROMPTS)
def test_a_batch_of_prompts_finds_what_the_original_finds_one_by_one(
    one_picture_with_all_prompts: list[list[dict[str, Any]]], index: int
) -> None:
    found = largest_difference(one_picture_with_all_prompts[index], BATCH["prompts"][index]["alone"])
    assert found["score"] <= 1e-5
    assert found["box"] <= 1e-5


def test_the_original_answers_a_batch_of_prompts_otherwise_than_one_by_one() -> None:
    """What README says of it: should this fail, a new original has mended it."""
    last = BATCH["prompts"][-1]
    assert [round(found["score"], 2) for found in last["alone"]] == [0.92, 0.88]
    assert [round(found["score"], 2) for found in last["in_batch"]] == [0.90, 0.42, 0.39]


def all_cases_in_one_frame() -> Arrays:
    """Pictures of all sizes and captions of all lengths, as one batch."""
    pixels = np.zeros((len(CASES), 3, *FRAME), np.uint8)
    for index, (case, _) in enumerate(CASES):
        pixels[index, :, : case.padded_hw[0], : case.padded_hw[1]] = case.padded_picture().transpose(2, 0, 1)
    prompts = [encode_prompt((case.caption,), (TOKENS,)) for case, _ in CASES]
    return {
        contract.PIXELS: pixels,
        contract.VALID_HW: np.array([case.valid_hw for case, _ in CASES], np.int32),
        contract.INPUT_IDS: np.stack([prompt.input_ids for prompt in prompts]),
        contract.POSITION_IDS: np.stack([prompt.position_ids for prompt in prompts]),
        contract.PHRASE_IDS: np.stack([prompt.phrase_ids for prompt in prompts]),
    }


def proposals_in_the_frame(case: Case, answer: Answer) -> Array:
    """The original's proposals, numbered as in the batch's frame instead of the case's."""
    return reframe(case, answer, (FRAME[0], FRAME[1]))[1].proposals.astype(np.int64)


@pytest.fixture(scope="module")
def all_cases_answered(demo_model: GroundingDino, cleaned_stage: OnnxStage) -> dict[str, ForcedAnswers]:
    inputs = all_cases_in_one_frame()
    proposals = np.stack([proposals_in_the_frame(*pair) for pair in CASES])
    stages: dict[str, Callable[[Arrays, Array], ForcedAnswers]] = {
        "torch": TorchStage(demo_model).forced,
        "onnx": cleaned_stage.forced,
    }
    return {name: forced(inputs, proposals) for name, forced in stages.items()}


@pytest.mark.parametrize("stage", ["torch", "onnx"])
@pytest.mark.parametrize("index", [pytest.param(index, id=case.name) for index, (case, _) in enumerate(CASES)])
def test_a_batch_of_all_pictures_and_prompts_is_answered_as_the_original_answers_each_alone(
    all_cases_answered: dict[str, ForcedAnswers], stage: str, index: int
) -> None:
    case, answer = CASES[index]
    batch = all_cases_answered[stage]
    found = ForcedAnswers(
        logits=batch.logits[index, answer.queries, : len(answer.input_ids)][None],
        boxes=batch.boxes[index, answer.queries][None],
        scores=batch.scores[index][None],
    )
    original = Answers(
        logits=answer.logits[None], boxes=answer.boxes[None], proposals=proposals_in_the_frame(case, answer)[None]
    )
    assert difference(original, found, answer.phrase_ids[None]).within(TOLERANCE)
