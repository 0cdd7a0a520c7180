"""A load, and how many replicas it takes."""

import math
from dataclasses import dataclass
from typing import Final, Self

from gdino_build.capacity.knee import find_knee
from gdino_build.capacity.levels import Level, Measured
from gdino_core.errors import ConfigError

SECONDS_A_DAY: Final = 86_400
PEAK_TO_MEAN: Final = 3.0  # of a day's traffic by its users' clocks; machines that ask around the clock have 1
UTILISATION: Final = 0.7  # of what a replica bears: requests come at random, not one for one answered


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What is asked of all replicas together.

    Attributes:
        peak_per_s: requests a second when most come; None asks for what one replica bears.
        peak_to_mean: the busiest time's requests over the day's mean.
        p95_ms: time that 95 of 100 answers must keep to; None: whatever it is at the knee.
        utilisation: of what a replica bears, that it is given at the peak.

    Raises:
        ConfigError: a value is out of range.
    """

    peak_per_s: float | None = None
    peak_to_mean: float = PEAK_TO_MEAN
    p95_ms: float | None = None
    utilisation: float = UTILISATION

    def __post_init__(self) -> None:
        """Check every value."""
        if self.peak_to_mean < 1:
            raise ConfigError(f"the peak is {self.peak_to_mean:g} times the mean", fix="give 1 or more")
        if not 0 < self.utilisation <= 1:
            raise ConfigError(f"the utilisation is {self.utilisation:g}", fix="give a part of 1, such as 0.7")

    @classmethod
    def of_a_day(
        cls, requests: float, *, peak_to_mean: float = PEAK_TO_MEAN, p95_ms: float | None, utilisation: float
    ) -> Self:
        """A load told as requests a day."""
        peak_per_s = requests / SECONDS_A_DAY * peak_to_mean
        return cls(peak_per_s=peak_per_s, peak_to_mean=peak_to_mean, p95_ms=p95_ms, utilisation=utilisation)


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What one replica bears, and how many are needed.

    Attributes:
        measured: of one replica.
        demand: what is asked.
        knee: after which it does not scale; None where that was not reached.
        limit: the level that a replica is brought to at most.
    """

    measured: Measured
    demand: Demand
    knee: Level | None
    limit: Level

    @property
    def replica_per_s(self) -> float:
        """Requests a second that a replica is given at the peak."""
        return self.limit.per_s * self.demand.utilisation

    @property
    def replica_per_day(self) -> int:
        """Requests a day that a replica answers, when the busiest time has `peak_to_mean` times the mean."""
        return math.floor(self.replica_per_s / self.demand.peak_to_mean * SECONDS_A_DAY)

    @property
    def per_core(self) -> float | None:
        """Requests a second for each processor that was busy; None where the time of processors is not known."""
        return self.limit.per_s / self.limit.cores if self.limit.cores else None

    @property
    def replicas(self) -> int | None:
        """That the load takes; None where none was given."""
        if self.demand.peak_per_s is None:
            return None
        # A load told as a multiple of a replica's rate is that many, whatever the last bit of a quotient says.
        return max(1, math.ceil(self.demand.peak_per_s / self.replica_per_s - 1e-9))


def plan_capacity(measured: Measured, demand: Demand) -> Capacity:
    """Find the level that a replica may be brought to, and with it the replicas.

    The level is the knee, or the last one where there is none; with a bound on p95, the most productive up to there
    that keeps to it.

    Raises:
        ConfigError: no level keeps to the bound.
    """
    knee = find_knee(measured.levels)
    bearable = [level for level in measured.levels if knee is None or level.concurrency <= knee.concurrency]
    if demand.p95_ms is not None:
        keeping = [level for level in bearable if level.p95_ms <= demand.p95_ms]
        if not keeping:
            quickest = min(bearable, key=lambda level: level.p95_ms)
            raise ConfigError(
                f"p95 is {quickest.p95_ms:g} ms with {quickest.concurrency} requests in flight, more than the "
                f"{demand.p95_ms:g} ms that are asked for",
                fix="more replicas make no answer quicker: a smaller profile, a lower precision or faster hardware do",
            )
        limit = max(keeping, key=lambda level: level.per_s)
    else:
        limit = knee or max(bearable, key=lambda level: level.per_s)
    return Capacity(measured=measured, demand=demand, knee=knee, limit=limit)
