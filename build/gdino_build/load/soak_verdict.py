"""Whether a server held a long load: no error, no growth, no restart, no answer later than its queues allow."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from gdino_build.load.mixed_load import ANSWERED, FAILED, Load, Outcome
from gdino_core import contract

MOST_GROWTH = 0.02
_MOST_EXAMPLES = 5
_PRIORITIES = {contract.PRIORITY_INTERACTIVE: "interactive", contract.PRIORITY_BULK: "bulk"}


@dataclass(frozen=True, kw_only=True)
class SoakRun:
    """What was seen.

    Attributes:
        capacity_per_s: requests a second that the server answers.
        load: that it was sent.
        outcomes: of all requests.
        memory_bytes: of the server and its models, at equal intervals.
        processes_before: of the server, with their command lines.
        processes_after: the same at the end.
        latest_s: that an answer may come: what a request may wait, and the work on it.
    """

    capacity_per_s: float
    load: Load
    outcomes: Sequence[Outcome]
    memory_bytes: Sequence[int]
    processes_before: Mapping[int, str]
    processes_after: Mapping[int, str]
    latest_s: float


def judge(run: SoakRun) -> dict[str, Any]:
    """The figures, and under `not_held` a sentence for each thing that did not hold."""
    kinds = Counter(outcome.kind for outcome in run.outcomes)
    latencies = {name: _latencies(run.outcomes, priority) for priority, name in _PRIORITIES.items()}
    growth = memory_growth(run.memory_bytes)
    restarted = sorted(run.processes_before.keys() ^ run.processes_after.keys())
    failures = Counter(outcome.message for outcome in run.outcomes if outcome.kind == FAILED)
    not_held = []
    if kinds[FAILED]:
        not_held.append(f"{kinds[FAILED]} requests failed: {failures.most_common(1)[0][0]}")
    if not kinds[ANSWERED]:
        not_held.append("no request was answered")
    if growth >= MOST_GROWTH:
        not_held.append(f"memory grew by {growth:.1%}")
    if restarted:
        not_held.append(f"{len(restarted)} processes came or went")
    for name, one in latencies.items():
        if one["p99_ms"] > 1000 * run.latest_s:
            not_held.append(f"p99 of {name} requests is {one['p99_ms']:.0f} ms, more than {1000 * run.latest_s:.0f}")
    return {
        "minutes": round(run.load.seconds / 60, 2),
        "capacity_per_s": round(run.capacity_per_s, 2),
        "per_s": round(run.load.per_s, 2),
        "answered_per_s": round(kinds[ANSWERED] / run.load.seconds, 2),
        "timeout_s": round(run.load.timeout_s, 2),
        "requests": len(run.outcomes),
        **{kind: kinds[kind] for kind in ("answered", "rejected", "refused", "failed")},
        "latency": latencies,
        "latest_ms": 1000 * run.latest_s,
        "memory_growth": round(growth, 4),
        "memory_bytes": list(run.memory_bytes),
        "restarts": len(restarted),
        "failures": dict(failures.most_common(_MOST_EXAMPLES)),
        "not_held": not_held,
    }


def memory_growth(samples: Sequence[int]) -> float:
    """By which share memory grew from the second fifth of the samples to the last, medians compared.

    The first fifth is left out: caches fill there.
    """
    fifth = len(samples) // 5
    if not fifth:
        return 0.0
    return median(samples[-fifth:]) / median(samples[fifth : 2 * fifth]) - 1


def format_verdict(report: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{report['profile']}, {report['minutes']:g} minutes at {report['per_s']:.3g} requests/s, twice the "
        f"{report['capacity_per_s']:.3g} that it answered before; {report['hardware']}",
        "",
        f"{report['requests']} requests: {report['answered']} answered, {report['rejected']} rejected (queue full, or "
        f"waited more than {report['timeout_s']:g} s), {report['refused']} refused (bad picture), "
        f"{report['failed']} failed; {report['answered_per_s']:.3g} answers/s",
        "",
        "| priority | answered | p50 ms | p95 ms | p99 ms |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {one['answered']} | {one['p50_ms']:.0f} | {one['p95_ms']:.0f} | {one['p99_ms']:.0f} |"
            for name, one in report["latency"].items()
        ),
        "",
        f"memory grew by {report['memory_growth']:.2%}; {report['restarts']} processes came or went",
        "",
        *([f"NOT HELD: {sentence}" for sentence in report["not_held"]] or ["all held"]),
    ]
    return "\n".join(lines) + "\n"


def _latencies(outcomes: Sequence[Outcome], priority: int) -> dict[str, float]:
    seconds = [one.seconds for one in outcomes if one.kind == ANSWERED and one.priority == priority]
    if len(seconds) < 2:
        return {"answered": len(seconds), "p50_ms": 0.0, "p95_ms": 0.0, "p99_ms": 0.0}
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {"answered": len(seconds), **{f"p{p}_ms": round(1000 * cuts[p - 1], 1) for p in (50, 95, 99)}}
