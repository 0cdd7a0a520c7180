"""Drive a server with NVIDIA's perf_analyzer: real requests at a level of concurrency, and what it measures."""

import base64
import csv
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tritonclient.utils import serialize_byte_tensor

from gdino_core import contract
from gdino_core.errors import ConfigError, ServerError

# It takes three windows and reports on all of them if they differ by less. On a shared machine they may differ by much,
# and no report would be worse than one whose tail latencies tell it.
_STABLE_PERCENT = 900


@dataclass(frozen=True, kw_only=True)
class LevelTimes:
    """What clients saw at one level: answers a second, and how long they waited."""

    concurrency: int
    per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, kw_only=True)
class PerfAnalyzer:
    """perf_analyzer in an environment of its own, made by make_perf_analyzer.sh."""

    environment: Path

    def check(self) -> None:
        """Refuse an environment that cannot run it.

        Raises:
            ConfigError: it is not there, or lacks a library.
        """
        fix = "make it with build/gdino_build/load/make_perf_analyzer.sh, or run make bench"
        if not self._program.is_file():
            raise ConfigError(f"there is no perf_analyzer in {self.environment}", fix=fix)
        run = subprocess.run([self._program, "--version"], env=self._variables(), capture_output=True, text=True)
        said = run.stdout + run.stderr
        if "Perf Analyzer Version" not in said:  # its exit code for --version is not 0
            raise ConfigError(f"perf_analyzer does not run: {said.strip()}", fix=fix)

    def measure(self, grpc_url: str, requests_file: Path, concurrency: int, window_s: float, log: Path) -> LevelTimes:
        """Keep so many requests in flight, and measure three windows.

        Args:
            grpc_url: of the server, HOST:PORT.
            requests_file: from `write_requests`; its requests are sent in turn.
            concurrency: requests in flight.
            window_s: length of one window; at least twice what a request takes at this level.
            log: gets what perf_analyzer says.

        Raises:
            ServerError: it failed, or requests did.
        """
        report = log.with_suffix(".csv")
        command = [
            *(str(self._program), "-m", contract.MODEL_GROUNDING_DINO, "-u", grpc_url, "-i", "grpc"),
            *("--input-data", str(requests_file), "--async", "--concurrency-range", str(concurrency)),
            *("-p", str(round(1000 * window_s)), "-s", str(_STABLE_PERCENT)),
            *("-f", str(report), "--percentile", "95"),
        ]
        with log.open("w", encoding="utf-8") as file:
            code = subprocess.run(command, env=self._variables(), stdout=file, stderr=subprocess.STDOUT).returncode
        if code or not report.is_file():
            raise ServerError(f"perf_analyzer ended with exit code {code}", fix=f"its log says why: {log}")
        times = read_report(report.read_text(encoding="utf-8"))
        report.unlink()
        return times

    @property
    def _program(self) -> Path:
        return self.environment / "bin" / "perf_analyzer"

    def _variables(self) -> dict[str, str]:
        folders = [
            *self.environment.glob("lib/python3*/site-packages/nvidia/cuda_runtime/lib"),
            *{path.parent for path in self.environment.glob("debian/usr/lib/*/libb64.so*")},
        ]
        given = [os.environ["LD_LIBRARY_PATH"]] if "LD_LIBRARY_PATH" in os.environ else []
        return os.environ | {"LD_LIBRARY_PATH": os.pathsep.join([*map(str, folders), *given])}


def write_requests(pictures: Sequence[bytes], labels: Sequence[str], path: Path) -> None:
    """Write requests as perf_analyzer reads them, one for each picture, all with the same labels."""
    prompt = _tensor([label.encode() for label in labels])
    requests = [{contract.IMAGE: _tensor([picture]), contract.PROMPT: prompt} for picture in pictures]
    path.write_text(json.dumps({"data": requests}), encoding="utf-8")


def read_report(content: str) -> LevelTimes:
    """Read the CSV of one level; it counts microseconds.

    Raises:
        ServerError: it has no measurement.
    """
    rows = list(csv.DictReader(content.strip().splitlines()))
    if not rows:
        raise ServerError("perf_analyzer measured nothing", fix="give it a longer window")
    row = rows[-1]
    return LevelTimes(
        concurrency=int(row["Concurrency"]),
        per_s=float(row["Inferences/Second"]),
        p50_ms=int(row["p50 latency"]) / 1000,
        p95_ms=int(row["p95 latency"]) / 1000,
        p99_ms=int(row["p99 latency"]) / 1000,
    )


def _tensor(elements: Sequence[bytes]) -> dict[str, object]:
    array = np.empty(len(elements), dtype=np.object_)
    array[:] = elements
    return {"b64": base64.b64encode(serialize_byte_tensor(array).item()).decode(), "shape": [len(elements)]}
