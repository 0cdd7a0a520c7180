"""What a bench measured: levels, what was measured beside them, and their ratios."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from gdino_build.load.perf_analyzer import LevelTimes
from gdino_build.load.step_times import StepTimes
from gdino_core import contract


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
            "mean_batch": round(self.steps[contract.MODEL_DETECTOR].mean_batch, 2),
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

    @property
    def engine_per_s(self) -> float:
        """Pictures a second of the bare engine's better loop."""
        return max(1000 / self.engine_ms, self.together_per_s)


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """A whole run.

    Attributes:
        hardware: of this machine.
        profile: what was served.
        pictures: that were sent in turn.
        labels: that each was asked for.
        at_once: pictures that Triton hands over together.
        turns: one or more for each level.
    """

    hardware: str
    profile: str
    pictures: int
    labels: int
    at_once: int
    turns: Sequence[Turn]

    def to_dict(self) -> dict[str, Any]:
        """As bench.json has it.

        The machine may be slower in one turn than in another: a level is compared with what was measured just before
        it, and of several turns the medians count.
        """
        levels = [_median_level(turns) for turns in self._by_concurrency().values()]
        busiest = max(levels, key=lambda level: level.times.per_s).times.concurrency
        saturated = self._by_concurrency()[busiest]
        single = self._by_concurrency().get(1, [])
        engine_ms = median(turn.engine_ms for turn in self.turns)
        together_per_s = median(turn.together_per_s for turn in self.turns)
        over_original = [turn.level.times.per_s / turn.original_per_s for turn in saturated if turn.original_per_s]
        return {
            "hardware": self.hardware,
            "profile": self.profile,
            "pictures": self.pictures,
            "labels": self.labels,
            "engine_per_s": round(max(1000 / engine_ms, together_per_s), 3),
            "engine_at_once": self.at_once if together_per_s > 1000 / engine_ms else 1,
            "engine_ms_p50": round(engine_ms, 2),
            "original_per_s": _median_or_none([turn.original_per_s for turn in self.turns if turn.original_per_s], 3),
            "served_over_engine": _median_or_none(
                [turn.level.times.per_s / turn.engine_per_s for turn in saturated], 3
            ),
            "served_over_original": _median_or_none(over_original, 2),
            "overhead_ms_p50": _median_or_none([turn.level.times.p50_ms - turn.engine_ms for turn in single], 2),
            "levels": [level.to_dict() for level in levels],
            "turns": [
                {
                    "concurrency": turn.level.times.concurrency,
                    "per_s": round(turn.level.times.per_s, 3),
                    "p50_ms": turn.level.times.p50_ms,
                    "engine_ms": round(turn.engine_ms, 2),
                    "together_per_s": round(turn.together_per_s, 3),
                    "original_per_s": turn.original_per_s and round(turn.original_per_s, 3),
                }
                for turn in self.turns
            ],
        }

    def _by_concurrency(self) -> dict[int, list[Turn]]:
        found: dict[int, list[Turn]] = {}
        for turn in self.turns:
            found.setdefault(turn.level.times.concurrency, []).append(turn)
        return found


def _median_level(turns: Sequence[Turn]) -> Level:
    return sorted((turn.level for turn in turns), key=lambda level: level.times.per_s)[len(turns) // 2]


def _median_or_none(values: Sequence[float], digits: int) -> float | None:
    return round(median(values), digits) if values else None
