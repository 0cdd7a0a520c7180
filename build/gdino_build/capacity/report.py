"""Write what a server bears, and how many a load takes: for programs, to read, and to look at."""

from pathlib import Path
from typing import Any

from gdino_build.capacity.demand import SECONDS_A_DAY, Capacity
from gdino_build.capacity.knee import explain
from gdino_build.capacity.levels import Level
from gdino_build.whole_file import write_figure, write_json, write_text

_HEAD = ("requests in flight", "pictures/s", "p95 ms", "mean ms (Little)", "waits, s", "cores", "")


def write_capacity(capacity: Capacity, folder: Path) -> list[Path]:
    """Write capacity.json, capacity.md and capacity.png; each appears only when it is whole."""
    paths = [folder / f"capacity.{suffix}" for suffix in ("json", "md", "png")]
    write_json(paths[0], to_dict(capacity))
    write_text(paths[1], format_capacity(capacity))
    _draw(capacity, paths[2])
    return paths


def to_dict(capacity: Capacity) -> dict[str, Any]:
    """As capacity.json has it."""
    demand, measured = capacity.demand, capacity.measured
    return {
        "profile": measured.profile,
        "hardware": measured.hardware,
        "knee_concurrency": capacity.knee and capacity.knee.concurrency,
        "why": explain(measured, capacity.knee),
        "limit_concurrency": capacity.limit.concurrency,
        "limit_per_s": capacity.limit.per_s,
        "limit_p95_ms": capacity.limit.p95_ms,
        "limit_waiting_s": round(capacity.limit.waiting_s, 4),
        "per_core": capacity.per_core and round(capacity.per_core, 3),
        "utilisation": demand.utilisation,
        "peak_to_mean": demand.peak_to_mean,
        "p95_ms": demand.p95_ms,
        "replica_per_s": round(capacity.replica_per_s, 3),
        "replica_per_day": capacity.replica_per_day,
        "peak_per_s": demand.peak_per_s and round(demand.peak_per_s, 3),
        "replicas": capacity.replicas,
        "against_little": [level.concurrency for level in measured.levels if not level.obeys_little],
    }


def format_capacity(capacity: Capacity) -> str:
    """A table of the levels, and what follows, as Markdown."""
    demand, limit = capacity.demand, capacity.limit
    rows = [_row(level, capacity) for level in capacity.measured.levels]
    per_core = f", {capacity.per_core:.3g} for each processor that was busy" if capacity.per_core else ""
    lines = [
        f"{capacity.measured.profile}, one replica; {capacity.measured.hardware}",
        "",
        *(f"| {' | '.join(row)} |" for row in (_HEAD, ("---",) * len(_HEAD), *rows)),
        "",
        explain(capacity.measured, capacity.knee),
        "",
        f"A replica answers {limit.per_s:.3g} pictures/s at {limit.concurrency} in flight, p95 {limit.p95_ms:.4g} "
        f"ms{per_core}. Given {demand.utilisation:.0%} of that at the peak, which has {demand.peak_to_mean:g} times "
        f"the day's mean, it answers {capacity.replica_per_day:,} requests a day.",
        "",
        f"Requests wait {limit.waiting_s:.3g} s there: the most that the autoscaler should aim at.",
    ]
    if demand.peak_per_s is not None:
        mean_per_day = demand.peak_per_s / demand.peak_to_mean * SECONDS_A_DAY
        lines += [
            "",
            f"{demand.peak_per_s:.3g} requests/s at the peak, {mean_per_day:,.0f} a day, take {capacity.replicas} "
            f"replicas, and {(capacity.replicas or 0) + 1} where one may be away.",
        ]
    odd = [str(level.concurrency) for level in capacity.measured.levels if not level.obeys_little]
    if odd:
        lines += [
            "",
            f"NOT CONSISTENT: at {', '.join(odd)} in flight the median is far from Little's law: measure again",
        ]
    return "\n".join(lines) + "\n"


def _row(level: Level, capacity: Capacity) -> tuple[str, ...]:
    notes = [name for name, one in (("knee", capacity.knee), ("limit", capacity.limit)) if one is level]
    return (
        str(level.concurrency),
        f"{level.per_s:.3g}",
        f"{level.p95_ms:.4g}",
        f"{level.mean_ms:.4g}",
        f"{level.waiting_s:.3g}",
        f"{level.cores:g}",
        ", ".join(notes),
    )


def _draw(capacity: Capacity, path: Path) -> None:
    from matplotlib.figure import Figure

    levels, limit = capacity.measured.levels, capacity.limit
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([one.per_s for one in levels], [one.p95_ms for one in levels], "o-", color="#3366aa", label="p95")
    for one in levels:
        axes.annotate(str(one.concurrency), (one.per_s, one.p95_ms), xytext=(4, 5), textcoords="offset points")
    axes.axvline(limit.per_s, color="#d1622b", linestyle="--", label=f"limit, {limit.concurrency} in flight")
    axes.axvline(capacity.replica_per_s, color="#2a9d5c", linestyle=":", label="given at the peak")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set(xlabel="pictures a second", ylabel="milliseconds", title="numbers: requests in flight")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.suptitle(f"{capacity.measured.profile}; {capacity.measured.hardware}", fontsize=8, wrap=True)
    write_figure(path, figure, dpi=110)
