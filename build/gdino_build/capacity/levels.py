"""The levels of a bench.json, checked, and what follows from each by itself."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gdino_core.errors import ConfigError

BENCH_FILE_NAME: Final = "bench.json"
_LEAST_LITTLE, _MOST_LITTLE = 0.5, 2.0  # a median is not the mean that the law speaks of, but is not far from it


@dataclass(frozen=True, kw_only=True)
class Level:
    """A server with so many requests in flight.

    Attributes:
        concurrency: requests in flight.
        per_s: requests answered in a second.
        p50_ms: median of the time to an answer.
        p95_ms: time that 95 of 100 answers keep to.
        cores: processors that were busy, on average.
        queue_ms: that a request waited, by step.
        compute_ms: that a request was worked on, by step.
    """

    concurrency: int
    per_s: float
    p50_ms: float
    p95_ms: float
    cores: float
    queue_ms: Mapping[str, float]
    compute_ms: Mapping[str, float]

    @property
    def mean_ms(self) -> float:
        """Mean time to an answer, by Little's law: as many are in flight as arrive while one is answered."""
        return 1000 * self.concurrency / self.per_s

    @property
    def obeys_little(self) -> bool:
        """Whether what clients saw agrees with it; if not, fewer were in flight than said, or clocks are wrong."""
        return _LEAST_LITTLE <= self.p50_ms / self.mean_ms <= _MOST_LITTLE

    @property
    def waiting_s(self) -> float:
        """That a request waited before all steps together: what the autoscaler on Kubernetes looks at."""
        return sum(self.queue_ms.values()) / 1000


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of one server.

    Attributes:
        profile: that it served.
        hardware: that it had.
        levels: by rising concurrency, at least one.
    """

    profile: str
    hardware: str
    levels: Sequence[Level]

    @property
    def processors(self) -> int | None:
        """Of the machine, as its description tells; None where it does not."""
        found = re.search(r"(\d+) cores", self.hardware)
        return int(found[1]) if found else None


def read_bench(path: Path) -> Measured:
    """Read and check a bench.json.

    Raises:
        ConfigError: it is missing, is something else, or a level in it cannot be.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist", fix="measure the server first: make bench")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        levels = sorted(map(_level, content["levels"]), key=lambda level: level.concurrency)
        measured = Measured(profile=content["profile"], hardware=content["hardware"], levels=levels)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no report of make bench: {error!r}", fix="run make bench again") from error
    if not levels:
        raise ConfigError(f"{path} has no levels", fix="run make bench again")
    for level in levels:
        _check(level, path)
    if len({level.concurrency for level in levels}) < len(levels):
        raise ConfigError(f"{path} has a level twice", fix="run make bench again")
    return measured


def _level(content: Mapping[str, Any]) -> Level:
    steps = content["steps"]
    return Level(
        concurrency=int(content["concurrency"]),
        per_s=float(content["per_s"]),
        p50_ms=float(content["p50_ms"]),
        p95_ms=float(content["p95_ms"]),
        cores=float(content["cores"]),
        queue_ms={name: float(step["queue_ms"]) for name, step in steps.items()},
        compute_ms={name: float(step["compute_ms"]) for name, step in steps.items()},
    )


def _check(level: Level, path: Path) -> None:
    for name in ("concurrency", "per_s", "p50_ms", "p95_ms"):
        value = getattr(level, name)
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(
                f"{path}: {name} is {value} with {level.concurrency} requests in flight", fix="run make bench again"
            )
    if level.p95_ms < level.p50_ms:
        raise ConfigError(
            f"{path}: with {level.concurrency} requests in flight p95 is {level.p95_ms:g} ms, below the median of "
            f"{level.p50_ms:g} ms",
            fix="run make bench again",
        )
