"""Train the demo checkpoint, from nothing or from an older one, on scenes of the demo world.

    python demo/train.py --steps 3700 --out out/demo-train            start
    python demo/train.py --steps 3700 --out out/demo-train --resume   go on
    python demo/train.py --steps 600 --lr 1e-4 --start-from demo/checkpoint.safetensors --out out/demo-tune

The folder receives train.log, state.pt (to resume) and checkpoint.safetensors (averaged weights, as float16).
"""

import argparse
import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader

from batches import Batch, TrainingBatches
from evaluate import evaluate_model, load_checkpoint
from gdino_build.model import DEMO, GroundingDino
from initialisation import initialise
from losses import compute_losses
from trainable import training_outputs

EMA_DECAY = 0.999
WEIGHT_DECAY = 1e-4
WARM_UP_STEPS = 200
FINAL_LR_SHARE = 0.01
REPORT_EVERY_STEPS = 20
SAVE_EVERY_SECONDS = 300.0
EVALUATION_SCENES = 100


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """One training run.

    Attributes:
        steps: length of the whole schedule, over all resumed runs.
        batch_size: pictures a step.
        peak_lr: learning rate after warm-up.
        clip_norm: largest gradient norm.
        seed: of weights and scenes.
        start_from: a checkpoint whose weights take the place of those of the seed.
        evaluate_every: steps between evaluations on EVALUATION_SCENES held-out scenes; 0 for none.
        stop_after_seconds: of this run; None for no limit.
        out: folder for log, state and checkpoint.
    """

    steps: int
    batch_size: int
    peak_lr: float
    clip_norm: float
    seed: int
    start_from: Path | None
    evaluate_every: int
    stop_after_seconds: float | None
    out: Path


class Trainer:
    """Weights, their average and the optimiser, at one step of a schedule."""

    def __init__(self, settings: TrainingSettings, device: torch.device) -> None:
        """Start at step 0 with the weights of the seed or of a checkpoint."""
        self.settings = settings
        self.device = device
        self.step = 0
        self.trained_seconds = 0.0
        self.model = GroundingDino(DEMO)
        initialise(self.model, settings.seed)
        if settings.start_from is not None:
            self.model.load_state_dict(load_checkpoint(settings.start_from).state_dict())
        self.model.to(device).train()
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        decayed = [parameter for parameter in self.model.parameters() if parameter.dim() > 1]
        plain = [parameter for parameter in self.model.parameters() if parameter.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=settings.peak_lr)

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Learn from one batch; returns its losses and `gradient`, the norm before clipping."""
        batch = batch.to(self.device)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.settings.steps, self.settings.peak_lr)
        outputs = training_outputs(
            self.model,
            batch.pixels,
            batch.valid_hw,
            batch.input_ids,
            batch.position_ids,
            batch.phrase_ids,
        )
        losses = compute_losses(outputs, batch.targets)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(losses.total)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        if bool(norm.isfinite()):
            self.optimiser.step()
        self.step += 1
        self._update_average()
        return losses.as_floats() | {"gradient": float(norm)}

    @torch.no_grad()
    def _update_average(self) -> None:
        # The first steps weigh little: without the ramp the average remembers the initial weights for long.
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        pairs = zip(self.average.parameters(), self.model.parameters(), strict=True)
        for averaged, current in pairs:
            averaged.lerp_(current, 1 - decay)

    def save(self) -> None:
        """Write state and checkpoint; an interrupted write leaves the previous files whole."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "trained_seconds": self.trained_seconds,
            "seed": self.settings.seed,
            "torch_rng": torch.get_rng_state(),
        }
        new_state = self.settings.out / "state.pt.new"
        torch.save(state, new_state)
        new_state.replace(self.settings.out / "state.pt")
        new_checkpoint = self.settings.out / "checkpoint.safetensors.new"
        metadata = {"architecture": DEMO.name, "step": str(self.step), "seed": str(self.settings.seed)}
        save_file(half_precision(self.average.state_dict()), new_checkpoint, metadata=metadata)
        new_checkpoint.replace(self.settings.out / "checkpoint.safetensors")

    def resume(self) -> None:
        """Go on from state.pt.

        Raises:
            SystemExit: there is none, or it belongs to another seed.
        """
        path = self.settings.out / "state.pt"
        if not path.exists():
            raise SystemExit(f"{path} does not exist\n  fix: start without --resume")
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        if state["seed"] != self.settings.seed:
            raise SystemExit(f"{path} was made with another seed\n  fix: --seed {state['seed']}")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        self.trained_seconds = state["trained_seconds"]
        torch.set_rng_state(state["torch_rng"].cpu())


def learning_rate(step: int, steps: int, peak_lr: float) -> float:
    """Linear warm-up over WARM_UP_STEPS, then half a cosine down to FINAL_LR_SHARE of the peak."""
    warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
    progress = min(1.0, step / max(steps, 1))
    cosine = (1 + math.cos(math.pi * progress)) / 2
    return peak_lr * warm_up * (FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * cosine)


def half_precision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy a state dict with its floating-point tensors as float16."""
    return {
        name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in state.items()
    }


def train(trainer: Trainer) -> None:
    """Run until the schedule or the time is over; save every SAVE_EVERY_SECONDS and at the end."""
    settings = trainer.settings
    batches = iter_batches(settings, trainer.step)
    started = saved = reported = time.monotonic()
    before = trainer.trained_seconds
    recent: list[dict[str, float]] = []
    for batch in batches:
        recent.append(trainer.train_step(batch))
        now = time.monotonic()
        trainer.trained_seconds = before + now - started
        if trainer.step % REPORT_EVERY_STEPS == 0:
            log(settings.out, progress_line(trainer, recent, (now - reported) / len(recent)))
            recent, reported = [], now
        if settings.evaluate_every and trainer.step % settings.evaluate_every == 0:
            accuracy = evaluate_model(trainer.average, EVALUATION_SCENES, show_progress=False)
            log(settings.out, f"step {trainer.step}  {accuracy.describe()}")
            reported = time.monotonic()
        if now - saved > SAVE_EVERY_SECONDS:
            trainer.save()
            saved = now
        if settings.stop_after_seconds is not None and now - started > settings.stop_after_seconds:
            break
    trainer.save()
    log(settings.out, f"step {trainer.step}  saved after {trainer.trained_seconds / 60:.0f} minutes in all")


def iter_batches(settings: TrainingSettings, first_step: int) -> Iterator[Batch]:
    """Batches from a step to the end, made ahead of time by another process."""
    loader = DataLoader(
        TrainingBatches(seed=settings.seed, batch_size=settings.batch_size),
        sampler=range(first_step, settings.steps),
        batch_size=None,
        num_workers=1,
        prefetch_factor=2,
    )
    return iter(loader)


def progress_line(trainer: Trainer, recent: list[dict[str, float]], seconds_a_step: float) -> str:
    """Describe the last steps: mean losses, gradient norm, learning rate and the time that is left."""
    means = {name: sum(losses[name] for losses in recent) / len(recent) for name in recent[0]}
    lr = trainer.optimiser.param_groups[0]["lr"]
    left = (trainer.settings.steps - trainer.step) * seconds_a_step / 60
    parts = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
    return (
        f"step {trainer.step}/{trainer.settings.steps}  {parts}  lr {lr:.2e}"
        f"  {seconds_a_step:.2f} s/step  {left:.0f} min left"
    )


def log(out: Path, line: str) -> None:
    """Print a line and append it to train.log."""
    print(line, flush=True)
    with (out / "train.log").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train the demo checkpoint.")
    parser.add_argument("--steps", type=int, required=True, help="length of the whole schedule")
    parser.add_argument("--out", type=Path, default=Path("out/demo-train"))
    parser.add_argument("--resume", action="store_true", help="go on from OUT/state.pt")
    parser.add_argument("--minutes", type=float, help="stop cleanly after so long")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=5e-4, help="peak learning rate")
    parser.add_argument("--clip", type=float, default=0.1, help="largest gradient norm")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of weights and scenes (default: %(default)s)")
    parser.add_argument("--start-from", type=Path, metavar="FILE", help="weights of this checkpoint, not of the seed")
    parser.add_argument("--eval-every", type=int, default=1000, help="steps between evaluations; 0 for none")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def main() -> None:
    """Train as the command line says."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    settings = TrainingSettings(
        steps=arguments.steps,
        batch_size=arguments.batch,
        peak_lr=arguments.lr,
        clip_norm=arguments.clip,
        seed=arguments.seed,
        start_from=arguments.start_from,
        evaluate_every=arguments.eval_every,
        stop_after_seconds=None if arguments.minutes is None else arguments.minutes * 60,
        out=arguments.out,
    )
    settings.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(settings, torch.device(arguments.device))
    if arguments.resume:
        trainer.resume()
    train(trainer)


if __name__ == "__main__":
    main()
