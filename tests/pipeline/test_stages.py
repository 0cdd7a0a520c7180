"""A stage answers alike whether it chooses its proposals or is given the same ones."""

import numpy as np
import pytest

from gdino_build.model import GroundingDino
from gdino_build.parity import Answers, ForcedAnswers
from gdino_build.stages import OnnxStage, TorchStage
from tests.pipeline.inputs import make_inputs

INPUTS = make_inputs((96, 128), ((96, 100), "red circle . blue star ."), ((80, 128), "a dog"))
Stage = TorchStage | OnnxStage


@pytest.fixture(params=["torch", "onnx"])
def stage(request: pytest.FixtureRequest, demo_model: GroundingDino, cleaned_stage: OnnxStage) -> Stage:
    return TorchStage(demo_model) if request.param == "torch" else cleaned_stage


def assert_close(found: Answers | ForcedAnswers, expected: Answers | ForcedAnswers) -> None:
    np.testing.assert_allclose(found.logits, expected.logits, rtol=0, atol=2e-5)
    np.testing.assert_allclose(found.boxes, expected.boxes, rtol=0, atol=2e-6)


def test_being_given_its_own_proposals_changes_no_answer(stage: Stage) -> None:
    answers = stage(INPUTS)
    assert_close(stage.forced(INPUTS, answers.proposals), answers)


def test_proposals_are_the_best_scored_tokens_in_falling_order(stage: Stage) -> None:
    answers = stage(INPUTS)
    scores = stage.forced(INPUTS, answers.proposals).scores
    chosen = np.take_along_axis(scores, answers.proposals, axis=1)
    assert (np.diff(chosen, axis=1) <= 1e-6).all()
    assert (np.sort(scores, axis=1)[:, -chosen.shape[1]] <= chosen.min(axis=1) + 1e-6).all()


def test_other_proposals_give_other_answers(stage: Stage) -> None:
    answers = stage(INPUTS)
    reordered = stage.forced(INPUTS, answers.proposals[:, ::-1].copy())
    assert np.abs(reordered.boxes - answers.boxes).max() > 1e-2


def test_shapes_are_those_of_the_contract(stage: Stage, demo_model: GroundingDino) -> None:
    answers = stage(INPUTS)
    queries = demo_model.config.num_queries
    tokens = 12 * 16 + 6 * 8 + 3 * 4 + 2 * 2
    assert answers.logits.shape == (2, queries, 16)
    assert answers.boxes.shape == (2, queries, 4)
    assert answers.proposals.shape == (2, queries)
    assert answers.proposals.dtype == np.int64
    assert stage.forced(INPUTS, answers.proposals).scores.shape == (2, tokens)
