"""Measure a server at several levels of concurrency, interleaved with its bare engine and the original."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from gdino_build.accuracy.original import OriginalProcess
from gdino_build.load.contenders import BareEngine
from gdino_build.load.perf_analyzer import LevelTimes, PerfAnalyzer, write_requests
from gdino_build.load.step_times import StepTimes, read_statistics, step_times
from gdino_build.machine import session_bytes, session_cpu_seconds
from gdino_build.serve import RunningServer


@dataclass(frozen=True, kw_only=True)
class Level:
    """One level of concurrency.

    Attributes:
        times: what clients saw.
        steps: what each step did meanwhile.
        cores: that server and models used, on average.
        memory_bytes: that they held at its end.
    """

    times: LevelTimes
    steps: dict[str, StepTimes]
    cores: float
    memory_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """As bench.json tells it."""
        return {
            "concurrency": self.times.concurrency,
            "per_s": round(self.times.per_s, 3),
            "p50_ms": self.times.p50_ms,
            "p95_ms": self.times.p95_ms,
            "p99_ms": self.times.p99_ms,
            "mean_batch": round(self.steps["detector"].mean_batch, 2),
            "cores": round(self.cores, 2),
            "memory_bytes": self.memory_bytes,
            "steps": {
                name: {"queue_ms": round(one.queue_ms, 3), "compute_ms": round(one.compute_ms, 3)}
                for name, one in self.steps.items()
            },
        }


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One level, and what was measured just before it.

    Attributes:
        level: of the server.
        engine_ms: median of the bare engine, one picture after the other.
        together_per_s: pictures a second of the bare engine that has as many at once as Triton hands over.
        original_per_s: pictures a second of the original; None where it was left out.
    """

    level: Level
    engine_ms: float
    together_per_s: float
    original_per_s: float | None


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """A whole run.

    Attributes:
        hardware: of this machine.
        profile: what was served.
        pictures: that were sent in turn.
        labels: that each was asked for.
        at_once: pictures that Triton hands over together.
        turns: one for each level.
    """

    hardware: str
    profile: str
    pictures: int
    labels: int
    at_once: int
    turns: Sequence[Turn]

    def to_dict(self) -> dict[str, Any]:
        """As bench.json has it; what was measured in each turn counts by its median."""
        levels = [turn.level for turn in self.turns]
        served = max(level.times.per_s for level in levels)
        engine_ms = median(turn.engine_ms for turn in self.turns)
        together = median(turn.together_per_s for turn in self.turns)
        engine = max(1000 / engine_ms, together)
        originals = [turn.original_per_s for turn in self.turns if turn.original_per_s is not None]
        original = median(originals) if originals else None
        single = next((level for level in levels if level.times.concurrency == 1), None)
        return {
            "hardware": self.hardware,
            "profile": self.profile,
            "pictures": self.pictures,
            "labels": self.labels,
            "engine_per_s": round(engine, 3),
            "engine_at_once": self.at_once if engine == together else 1,
            "engine_ms_p50": round(engine_ms, 2),
            "original_per_s": original and round(original, 3),
            "served_over_engine": round(served / engine, 3),
            "served_over_original": original and round(served / original, 2),
            "overhead_ms_p50": single and round(single.times.p50_ms - engine_ms, 2),
            "levels": [level.to_dict() for level in levels],
            "turns": [
                {
                    "engine_ms": round(turn.engine_ms, 2),
                    "together_per_s": round(turn.together_per_s, 3),
                    "original_per_s": turn.original_per_s and round(turn.original_per_s, 3),
                }
                for turn in self.turns
            ],
        }


@dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """How to measure.

    Attributes:
        concurrencies: levels, each with so many requests in flight.
        seconds: of each contender in each turn, at least one picture.
        folder: for what perf_analyzer reads and says.
    """

    concurrencies: Sequence[int]
    seconds: float
    folder: Path


def measure_levels(
    server: RunningServer,
    perf_analyzer: PerfAnalyzer,
    engine: BareEngine,
    original: tuple[OriginalProcess, Sequence[Path]] | None,
    pictures: Sequence[bytes],
    labels: Sequence[str],
    plan: BenchPlan,
    progress: Callable[[str], None],
) -> Iterator[Turn]:
    """Take turns: the bare engine, the original, and the server at the next level.

    Args:
        server: that is ready.
        perf_analyzer: sends the requests.
        engine: the bare engine.
        original: loaded, and the files of the pictures; None leaves it out.
        pictures: encoded.
        labels: that all pictures are asked for.
        plan: how to measure.
        progress: is told what comes next.

    Yields:
        A turn for each level.
    """
    requests_file = plan.folder / "bench-requests.json"
    write_requests(pictures, labels, requests_file)
    engine.together(0.0)  # the first inferences prepare the engine
    picture_s = median(engine.one_by_one(0.0))
    for concurrency in plan.concurrencies:
        progress("the bare engine")
        engine_s = median(engine.one_by_one(plan.seconds))
        together_per_s = engine.together(plan.seconds)
        original_per_s = None
        if original:
            progress("the original")
            original_per_s = _original_per_s(*original, plan.seconds)
        progress(f"{concurrency} requests in flight")
        window_s = max(plan.seconds, 2.5 * concurrency * picture_s)
        yield Turn(
            level=_measure_level(server, perf_analyzer, requests_file, concurrency, window_s, plan.folder),
            engine_ms=1000 * engine_s,
            together_per_s=together_per_s,
            original_per_s=original_per_s,
        )
    requests_file.unlink()


def _measure_level(
    server: RunningServer,
    perf_analyzer: PerfAnalyzer,
    requests_file: Path,
    concurrency: int,
    window_s: float,
    folder: Path,
) -> Level:
    before, cpu_s, started = read_statistics(server.grpc_url), session_cpu_seconds(server.pid), time.monotonic()
    log = folder / f"perf-analyzer-{concurrency}.log"
    times = perf_analyzer.measure(server.grpc_url, requests_file, concurrency, window_s, log)
    elapsed_s = time.monotonic() - started
    return Level(
        times=times,
        steps=step_times(before, read_statistics(server.grpc_url)),
        cores=(session_cpu_seconds(server.pid) - cpu_s) / elapsed_s,
        memory_bytes=session_bytes(server.pid),
    )


def _original_per_s(original: OriginalProcess, files: Sequence[Path], seconds: float) -> float:
    done, started = 0, time.perf_counter()
    while not done or time.perf_counter() - started < seconds:
        original(files[done % len(files)])
        done += 1
    return done / (time.perf_counter() - started)
