"""Training: starts well, resumes exactly, and leaves a checkpoint that the model loads."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from batches import Batch, TrainingBatches
from evaluate import load_checkpoint
from gdino_build.model import DEMO, GroundingDino
from initialisation import BACKGROUND_LOGIT, initialise
from train import (
    FINAL_LR_SHARE,
    WARM_UP_STEPS,
    Trainer,
    TrainingSettings,
    learning_rate,
)
from trainable import training_outputs

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """On a busy machine threads that wait for each other make these tiny batches many times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    made = TrainingBatches(seed=0, batch_size=1)
    return [made[step] for step in range(3)]


def settings_in(folder: Path, steps: int = 100) -> TrainingSettings:
    return TrainingSettings(
        steps=steps,
        batch_size=1,
        peak_lr=1e-3,
        clip_norm=0.1,
        seed=0,
        start_from=None,
        evaluate_every=0,
        stop_after_seconds=None,
        out=folder,
    )


def real_logits(model: GroundingDino, batch: Batch) -> list[Tensor]:
    with torch.no_grad():
        outputs = training_outputs(
            model, batch.pixels, batch.valid_hw, batch.input_ids, batch.position_ids, batch.phrase_ids
        )
    real = batch.phrase_ids >= 0
    return [logits[real[:, None].expand_as(logits)] for logits in (outputs.encoder_logits, *outputs.decoder_logits)]


def test_initial_logits_say_background_and_hardly_vary(batches: list[Batch]) -> None:
    model = GroundingDino(DEMO)
    initialise(model, seed=0)
    for logits in real_logits(model, batches[0]):
        assert float(logits.mean()) == pytest.approx(BACKGROUND_LOGIT, abs=2.5)
        assert float(logits.std()) < 2.0


def test_initial_weights_depend_on_the_seed_alone() -> None:
    states = []
    for seed in (1, 1, 2):
        model = GroundingDino(DEMO)
        torch.rand(1)  # whatever torch's own generator did before
        initialise(model, seed)
        states.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_a_step_has_a_gradient_of_sane_length_for_every_parameter(batches: list[Batch], tmp_path: Path) -> None:
    trainer = Trainer(settings_in(tmp_path), CPU)
    for batch in batches[:2]:  # in the first step the box heads' zero weights hide the layers before
        norm = trainer.train_step(batch)["gradient"]
        assert math.isfinite(norm)
        assert norm < 1e4
    idle = [name for name, parameter in trainer.model.named_parameters() if parameter.grad is None]
    assert idle == []


def test_a_resumed_run_ends_with_the_same_weights_as_one_that_never_stopped(
    batches: list[Batch], tmp_path: Path
) -> None:
    through = Trainer(settings_in(tmp_path), CPU)
    for batch in batches[:2]:
        through.train_step(batch)
    through.save()
    resumed = Trainer(settings_in(tmp_path), CPU)
    resumed.resume()
    for trainer in (through, resumed):
        trainer.train_step(batches[2])
    assert resumed.step == through.step == 3
    for one, other in zip(resumed.average.parameters(), through.average.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_checkpoint_holds_the_averaged_weights_in_half_precision(tmp_path: Path) -> None:
    trainer = Trainer(settings_in(tmp_path), CPU)
    trainer.save()
    path = tmp_path / "checkpoint.safetensors"
    assert path.stat().st_size <= 12 * 2**20
    loaded = load_checkpoint(path).state_dict()
    for name, tensor in trainer.average.state_dict().items():
        torch.testing.assert_close(loaded[name], tensor, rtol=1e-3, atol=1e-6)


def test_training_starts_from_the_weights_of_a_checkpoint(tmp_path: Path) -> None:
    Trainer(settings_in(tmp_path), CPU).save()
    path = tmp_path / "checkpoint.safetensors"
    tuned = Trainer(replace(settings_in(tmp_path), seed=1, start_from=path), CPU)
    for one, other in zip(tuned.model.parameters(), load_checkpoint(path).parameters(), strict=True):
        assert one.requires_grad
        assert torch.equal(one, other)
    for one, other in zip(tuned.average.parameters(), tuned.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_resuming_without_a_state_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="start without --resume"):
        Trainer(settings_in(tmp_path), CPU).resume()


def test_resuming_with_another_seed_says_what_to_do(tmp_path: Path) -> None:
    Trainer(settings_in(tmp_path), CPU).save()
    with pytest.raises(SystemExit, match="--seed 0"):
        Trainer(replace(settings_in(tmp_path), seed=1), CPU).resume()


def test_the_learning_rate_warms_up_and_falls_to_its_floor() -> None:
    rates = [learning_rate(step, 5000, 1e-3) for step in range(5000)]
    assert rates[0] < 1e-5
    assert max(rates) == pytest.approx(1e-3, rel=0.02)
    assert rates.index(max(rates)) == pytest.approx(WARM_UP_STEPS, abs=2)
    assert rates[-1] == pytest.approx(FINAL_LR_SHARE * 1e-3, rel=0.02)
