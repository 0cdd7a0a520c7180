"""Where a server stops scaling, and why."""

import math
from collections.abc import Sequence
from typing import Final

from gdino_build.capacity.levels import Level, Measured

LEAST_GROWTH: Final = 0.10  # of throughput, for twice the requests in flight; less is not worth their delay
_BUSY = 0.85  # of the processors: the rest is lost between steps and to whatever else runs


def find_knee(levels: Sequence[Level], least_growth: float = LEAST_GROWTH) -> Level | None:
    """Find the first level that no later one is worth: throughput grows too little, and p95 grows.

    All later levels are looked at, not the next alone: a level that was measured at a bad moment is no knee.

    Args:
        levels: by rising concurrency.
        least_growth: of throughput for twice the requests in flight, that is worth it: 0.1 is a tenth.

    Returns:
        The knee; None where the last level still scales.
    """
    for place, level in enumerate(levels[:-1]):
        if not any(_is_worth(later, level, least_growth) for later in levels[place + 1 :]):
            return level
    return None


def _is_worth(later: Level, level: Level, least_growth: float) -> bool:
    needed = (1 + least_growth) ** math.log2(later.concurrency / level.concurrency)
    return later.per_s >= needed * level.per_s or later.p95_ms <= level.p95_ms


def explain(measured: Measured, knee: Level | None) -> str:
    """Say what keeps the server from answering more."""
    if knee is None:
        last = measured.levels[-1]
        return (
            f"no knee: throughput still grows at {last.concurrency} requests in flight, the most that was measured; "
            "measure more (make bench CONCURRENCY=)"
        )
    slowest = max(knee.compute_ms, key=lambda name: knee.compute_ms[name], default="")
    last = measured.levels[-1]
    waits = max(last.queue_ms, key=lambda name: last.queue_ms[name], default="")
    found = f"from {knee.concurrency} requests in flight on, twice as many bring less than {LEAST_GROWTH:.0%} more"
    processors = measured.processors
    if processors and knee.cores >= _BUSY * processors:
        why = (
            f"{knee.cores:.1f} of {processors} processors are busy, most of the time with the {slowest} "
            f"({knee.compute_ms[slowest]:.3g} ms of a request); more processors or more replicas help"
        )
    elif processors:
        why = (
            f"the server uses {knee.cores:.1f} of {processors} processors, and requests wait most before the {waits} "
            f"({last.queue_ms[waits]:.3g} ms with {last.concurrency} in flight): its GPU is busy, that step has too "
            "few instances, or other programs had the processors; then measure again without them"
        )
    else:
        why = f"requests wait most before the {waits}"
    return f"{found}: {why}"
