"""Measure a server at several levels of concurrency, interleaved with its bare engine and the original."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from gdino_build.load.bare_engine import BareEngine
from gdino_build.load.bench_figures import Level, Turn
from gdino_build.load.perf_analyzer import PerfAnalyzer
from gdino_build.load.step_times import read_statistics, step_times
from gdino_build.machine import session_bytes, session_cpu_seconds
from gdino_build.serve import RunningServer

_WINDOW_ANSWERS = 2.5  # to each client, at least, while a window of perf_analyzer lasts


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What takes turns.

    Attributes:
        server: that is ready.
        perf_analyzer: sends it requests.
        requests_file: from `write_requests`.
        engine: the bare engine.
        original: answers a picture's file; None leaves it out.
        files: of the pictures, for the original.
        seconds: of each in each turn, at least one picture.
        log_folder: gets what perf_analyzer says.
    """

    server: RunningServer
    perf_analyzer: PerfAnalyzer
    requests_file: Path
    engine: BareEngine
    original: Callable[[Path], None] | None
    files: Sequence[Path]
    seconds: float
    log_folder: Path


def measure_levels(bench: Bench, concurrencies: Sequence[int], progress: Callable[[str], None]) -> Iterator[Turn]:
    """Take turns: the bare engine, the original, and the server at the next level.

    Args:
        bench: what takes turns.
        concurrencies: of each turn, the requests in flight.
        progress: is told what comes next.

    Yields:
        A turn for each level.
    """
    bench.engine.together(0.0)  # the first inferences prepare the engine
    for concurrency in concurrencies:
        progress("the bare engine")
        engine_s = median(bench.engine.one_by_one(bench.seconds))
        together_per_s = bench.engine.together(bench.seconds)
        progress("the original")
        original_per_s = _original_per_s(bench.original, bench.files, bench.seconds) if bench.original else None
        progress(f"{concurrency} requests in flight")
        window_s = max(bench.seconds, _WINDOW_ANSWERS * concurrency * engine_s)
        yield Turn(
            level=_measure_level(bench, concurrency, window_s),
            engine_ms=1000 * engine_s,
            together_per_s=together_per_s,
            original_per_s=original_per_s,
        )


def _measure_level(bench: Bench, concurrency: int, window_s: float) -> Level:
    url, pid = bench.server.grpc_url, bench.server.pid
    log = bench.log_folder / f"perf-analyzer-{concurrency}.log"
    before, cpu_s, started = read_statistics(url), session_cpu_seconds(pid), time.monotonic()
    times = bench.perf_analyzer.measure(url, bench.requests_file, concurrency, window_s, log)
    elapsed_s = time.monotonic() - started
    return Level(
        times=times,
        steps=step_times(before, read_statistics(url)),
        cores=(session_cpu_seconds(pid) - cpu_s) / elapsed_s,
        memory_bytes=session_bytes(pid),
    )


def _original_per_s(original: Callable[[Path], None], files: Sequence[Path], seconds: float) -> float:
    done, started = 0, time.perf_counter()
    while not done or time.perf_counter() - started < seconds:
        original(files[done % len(files)])
        done += 1
    return done / (time.perf_counter() - started)
