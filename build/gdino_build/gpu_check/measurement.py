"""Measure contenders: each alone for memory and answers, then all in turn for latency."""

import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gdino_build.golden import Golden
from gdino_build.gpu_check.comparison import Compared, compare_with_golden
from gdino_build.gpu_check.process import Contender, RunnerProcess, running
from gdino_build.parity import Arrays
from gdino_core.errors import ServerError

PASSES = 3  # timed in a turn, after one that does not count
_PERCENTILE = 95

OpenMeter = Callable[[], Callable[[RunnerProcess], int]]  # opened before a process starts, then tells its bytes


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured of one contender at one batch size.

    Attributes:
        runner: such as "TensorRT".
        precision: of the runner.
        version: of what runs it; "" where it did not load.
        batch: pictures in a batch.
        seconds: of each timed pass, from inputs on the device to outputs on the device.
        peak_bytes: memory that it held after a pass, alone on the device; None where it failed.
        compared: with the golden; None without one, or where it failed.
        failure: why something is missing; "" where all was measured.
    """

    runner: str
    precision: str
    version: str
    batch: int
    seconds: Sequence[float]
    peak_bytes: int | None
    compared: Compared | None
    failure: str

    @property
    def median_ms(self) -> float | None:
        """Median latency of a batch, in milliseconds."""
        return 1000 * statistics.median(self.seconds) if self.seconds else None

    @property
    def p95_ms(self) -> float | None:
        """95th percentile of the latency of a batch, in milliseconds."""
        return 1000 * float(np.percentile(self.seconds, _PERCENTILE)) if self.seconds else None

    @property
    def images_per_s(self) -> float | None:
        """Throughput of one batch after the other."""
        return self.batch / statistics.median(self.seconds) if self.seconds else None


@dataclass(kw_only=True)
class _Found:
    """What is known of one contender so far, by batch size."""

    version: str
    seconds: dict[int, list[float]]
    peak_bytes: dict[int, int]
    compared: dict[int, Compared]
    failures: dict[int, str]


def measure(
    contenders: Sequence[Contender],
    batches: Mapping[int, Arrays],
    golden: Golden | None,
    *,
    open_meter: OpenMeter,
    rounds: int,
    log: Path,
) -> list[Row]:
    """Measure every contender at every batch size; one that fails leaves a row that says so.

    Args:
        contenders: at least one.
        batches: what is timed, by batch size, rising: what a process holds only grows from one to the next.
        golden: the original's answers; None compares nothing.
        open_meter: tells the memory of a process.
        rounds: in which all take turns.
        log: gets what the processes print.
    """
    founds = [_Found(version="", seconds={}, peak_bytes={}, compared={}, failures={}) for _ in contenders]
    log.write_text("", encoding="utf-8")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for batch, inputs in batches.items():
            np.savez(_file(folder, batch), **inputs)
        for contender, found in tqdm(list(zip(contenders, founds, strict=True)), desc="alone", disable=None):
            _measure_alone(contender, found, sorted(batches), golden, open_meter, folder, log)
        _time_in_turn(contenders, founds, rounds, folder, log)
    return [
        Row(
            runner=contender.runner,
            precision=contender.precision,
            version=found.version,
            batch=batch,
            seconds=found.seconds.get(batch, ()),
            peak_bytes=found.peak_bytes.get(batch),
            compared=found.compared.get(batch),
            failure=found.failures.get(batch, ""),
        )
        for contender, found in zip(contenders, founds, strict=True)
        for batch in batches
    ]


def _measure_alone(
    contender: Contender,
    found: _Found,
    batches: Sequence[int],
    golden: Golden | None,
    open_meter: OpenMeter,
    folder: Path,
    log: Path,
) -> None:
    held = open_meter()

    def weigh(process: RunnerProcess, batch: int) -> None:
        process.seconds(_file(folder, batch), 0, release=False)
        found.peak_bytes[batch] = held(process)

    def compare(process: RunnerProcess, batch: int) -> None:
        assert golden is not None
        found.compared[batch] = compare_with_golden(
            golden,
            partial(process.answer, folder=folder),
            batch=batch,
            precision=contender.precision,
            can_force=process.can_force,
        )

    # A process for each: one that the largest batch ends does not take the comparisons of the others with it.
    for work in (weigh, compare) if golden else (weigh,):
        try:
            with running(contender, log) as process:
                found.version = process.version
                _each(found, batches, partial(work, process))
        except ServerError as error:  # it did not load
            found.failures = dict.fromkeys(batches, str(error))
            break
    found.seconds = {batch: [] for batch in batches if batch not in found.failures}


def _time_in_turn(
    contenders: Sequence[Contender], founds: Sequence[_Found], rounds: int, folder: Path, log: Path
) -> None:
    with ExitStack() as stack:
        loaded: list[tuple[_Found, RunnerProcess]] = []
        for contender, found in zip(contenders, founds, strict=True):
            if found.seconds:
                try:
                    loaded.append((found, stack.enter_context(running(contender, log))))
                except ServerError as error:  # with the others beside it
                    found.failures = dict.fromkeys(found.seconds, str(error)) | found.failures
        for number in tqdm(range(rounds), desc="rounds", unit="round", disable=None):
            first = number % max(len(loaded), 1)  # none always follows the same one
            for found, process in loaded[first:] + loaded[:first]:

                def time(batch: int, found: _Found = found, process: RunnerProcess = process) -> None:
                    # Memory goes back: at full size not all can keep what they need.
                    found.seconds[batch] += process.seconds(_file(folder, batch), PASSES, release=True)

                _each(found, list(found.seconds), time)


def _each(found: _Found, batches: Iterable[int], work: Callable[[int], None]) -> None:
    """Do something at each batch size that has not failed yet; a failure is noted."""
    for batch in batches:
        if batch in found.failures:
            continue
        try:
            work(batch)
        except ServerError as error:
            found.failures[batch] = str(error)


def _file(folder: Path, batch: int) -> Path:
    return folder / f"batch-{batch}.npz"
