"""Time the detector's engines of several precisions beside the original in PyTorch, interleaved in one run.

On a machine that others share, only ratios of one run mean something: every round runs the original and each engine
once, and the figures are medians over the rounds. All get the same picture and prompt, and the same number of threads.
"""

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from gdino_build.engine import engine_interface
from gdino_build.machine import describe_hardware
from gdino_build.parity import Arrays
from gdino_build.pictures import draw_picture
from gdino_core import contract
from gdino_core.errors import ConfigError, ServerError
from gdino_core.openvino_engine import OpenVinoEngine, OpenVinoSettings
from gdino_core.prompt import encode_prompt

ORIGINAL = "original"
CAPTION = "a cat . a remote control . a person . a red bicycle ."  # 16 tokens, to the original too
_MODULE = "tests.reference.time_original"


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Seconds of each run.

    Attributes:
        image_hw: height and width of the picture, which fills its bucket.
        tokens: of the prompt.
        seconds: of each round, by precision, and of ORIGINAL.
    """

    image_hw: tuple[int, int]
    tokens: int
    seconds: Mapping[str, Sequence[float]]

    def medians(self) -> dict[str, float]:
        """Seconds by name."""
        return {name: statistics.median(runs) for name, runs in self.seconds.items()}

    def speedups(self) -> dict[str, float]:
        """How many times as fast as the original each engine is: the median of the rounds' ratios."""
        original = self.seconds[ORIGINAL]
        return {
            name: statistics.median(slow / fast for slow, fast in zip(original, runs, strict=True))
            for name, runs in self.seconds.items()
            if name != ORIGINAL
        }

    def fastest(self) -> dict[str, float]:
        """Seconds of each one's fastest round: what other work on the machine disturbed least."""
        return {name: min(runs) for name, runs in self.seconds.items()}

    def to_dict(self) -> dict[str, Any]:
        """As out/bench-engine.json has it."""
        return {
            "hardware": describe_hardware(),
            "shape": {"height": self.image_hw[0], "width": self.image_hw[1], "tokens": self.tokens, "batch": 1},
            "rounds": len(self.seconds[ORIGINAL]),
            "median_s": {name: round(value, 3) for name, value in self.medians().items()},
            "speedup_vs_original": {name: round(value, 2) for name, value in self.speedups().items()},
            "fastest_s": {name: round(value, 3) for name, value in self.fastest().items()},
            "seconds": {name: [round(value, 3) for value in runs] for name, runs in self.seconds.items()},
        }


def format_timings(timings: Timings) -> str:
    """A table."""
    medians, speedups, fastest = timings.medians(), timings.speedups(), timings.fastest()
    lines = [f"{'':<10}{'median s':>10}{'x original':>12}{'fastest s':>12}{'x original':>12}"]
    lines += [
        f"{name:<10}{medians[name]:>10.2f}{speedups.get(name, 1.0):>12.2f}"
        f"{fastest[name]:>12.2f}{fastest[ORIGINAL] / fastest[name]:>12.2f}"
        for name in timings.seconds
    ]
    return "\n".join(lines)


def time_interleaved(
    engines: Mapping[str, Path], original: Callable[[], float], image_hw: tuple[int, int], rounds: int, threads: int
) -> Timings:
    """Run the original and every engine once a round, after one round that does not count.

    Args:
        engines: the detector's .xml by precision.
        original: runs the original on the same picture and CAPTION, and returns its seconds.
        image_hw: height and width of the picture, multiples of 32.
        rounds: that count.
        threads: of each engine; 0 leaves the choice to OpenVINO.
    """
    loaded = {name: OpenVinoEngine(path, OpenVinoSettings(threads=threads)) for name, path in engines.items()}
    [width] = {engine_interface(path).inputs[contract.TEXT_FEATURES].dims[-1] for path in engines.values()}
    inputs = detector_inputs(image_hw, width)
    seconds: dict[str, list[float]] = {ORIGINAL: [], **{name: [] for name in loaded}}
    for number in tqdm(range(rounds + 1), desc="rounds", unit="round", disable=None):
        found = {ORIGINAL: original(), **{name: _seconds(engine, inputs) for name, engine in loaded.items()}}
        if number:
            for name, value in found.items():
                seconds[name].append(value)
    return Timings(image_hw=image_hw, tokens=inputs[contract.POSITION_IDS].shape[1], seconds=seconds)


def detector_inputs(image_hw: tuple[int, int], text_width: int) -> Arrays:
    """A drawn picture that fills its bucket, CAPTION's ids, and text features, whose values cost no time."""
    prompt = encode_prompt((CAPTION,), (16,))
    features = np.random.default_rng(0).standard_normal((1, len(prompt.input_ids), text_width), np.float32)
    return {
        contract.PIXELS: np.ascontiguousarray(draw_picture(1, *image_hw).transpose(2, 0, 1))[None],
        contract.VALID_HW: np.array([image_hw], np.int32),
        contract.TEXT_FEATURES: features,
        contract.POSITION_IDS: prompt.position_ids[None],
        contract.PHRASE_IDS: prompt.phrase_ids[None],
    }


@contextmanager
def original_timed(
    *, root: Path, environment: Path, model: str, weights: Path, image_hw: tuple[int, int], threads: int
) -> Iterator[Callable[[], float]]:
    """Keep the original loaded in its own environment; what is yielded runs it once and returns its seconds.

    Args:
        root: the repository, whose tests/reference runs it.
        environment: its virtual environment, made by tests/reference/make_environment.sh.
        model: "demo", "swint" or "swinb".
        weights: .safetensors with the official names.
        image_hw: height and width of the picture.
        threads: that it may use; 0 for all.

    Raises:
        ConfigError: the environment is not there.
        ServerError: it ended with an error, which it has printed; or it answers something else than a number.
    """
    python = environment / "bin" / "python"
    if not python.is_file():
        raise ConfigError(
            f"the original's environment {environment} is not there",
            fix="make it with tests/reference/make_environment.sh",
        )
    arguments = ["--model", model, "--weights", str(weights.resolve()), "--size", f"{image_hw[0]}x{image_hw[1]}"]
    arguments += ["--caption", CAPTION, *(["--threads", str(threads)] if threads else [])]
    with subprocess.Popen(
        [str(python.absolute()), "-m", _MODULE, *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root / 'build'}{os.pathsep}{root}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        asking = process.stdin.fileno()
        try:
            tokens, expected = _read_number(process), len(encode_prompt((CAPTION,), (16,)).input_ids)
            if tokens != expected:
                raise ServerError(
                    f"the original makes {tokens:g} tokens of the prompt, not {expected}", fix="report it"
                )

            def run() -> float:
                with suppress(BrokenPipeError):  # it has ended: reading tells how
                    os.write(asking, b"\n")
                return _read_number(process)

            yield run
        finally:
            process.kill()  # it has nothing to put in order


def _read_number(process: "subprocess.Popen[str]") -> float:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise ServerError(
            f"the original ended with exit code {process.wait()}",
            fix="what it printed above says why; tests/reference/make_environment.sh makes its environment again",
        )
    try:
        return float(line)
    except ValueError as error:
        raise ServerError(f"the original answered {line.strip()!r}, which is no number", fix="report it") from error


def _seconds(engine: OpenVinoEngine, inputs: Arrays) -> float:
    started = time.perf_counter()
    engine.infer(inputs)
    return time.perf_counter() - started
