"""Write what `make bench` measured: for programs, to read, and to look at."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gdino_build.whole_file import write_figure, write_json, write_text

_HEAD = ("requests in flight", "pictures/s", "p50 ms", "p95 ms", "p99 ms", "mean batch", "cores", "memory, MiB")


def write_report(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write bench.json, bench.md and bench.png; each appears only when it is whole."""
    paths = [folder / f"bench.{suffix}" for suffix in ("json", "md", "png")]
    write_json(paths[0], report)
    write_text(paths[1], format_report(report))
    _draw(report, paths[2])
    return paths


def format_report(report: Mapping[str, Any]) -> str:
    """The levels, the steps and what they are compared with, as Markdown."""
    rows = [
        (
            level["concurrency"],
            f"{level['per_s']:.3g}",
            f"{level['p50_ms']:.4g}",
            f"{level['p95_ms']:.4g}",
            f"{level['p99_ms']:.4g}",
            level["mean_batch"],
            level["cores"],
            level["memory_bytes"] >> 20,
        )
        for level in report["levels"]
    ]
    steps = [
        (level["concurrency"], *(f"{one['queue_ms']:.3g} + {one['compute_ms']:.3g}" for one in times.values()))
        for level in report["levels"]
        for times in [level["steps"]]
    ]
    names = list(report["levels"][0]["steps"])
    lines = [
        f"{report['profile']}: {report['pictures']} pictures in turn, {report['labels']} labels each; "
        f"{report['hardware']}",
        "",
        *_table(_HEAD, rows),
        "",
        "Milliseconds in the queue + at work, by step:",
        "",
        *_table(("requests in flight", *names), steps),
        "",
        f"bare engine in a loop, {report['engine_at_once']} pictures at once and the text encoded before: "
        f"{report['engine_per_s']:.3g} pictures/s; the server makes {report['served_over_engine']:.2f} times as many "
        "as the engine just before",
    ]
    if report["original_per_s"]:
        lines += [
            "",
            f"the original in a loop: {report['original_per_s']:.3g} pictures/s; the server makes "
            f"{report['served_over_original']:.1f} times as many",
        ]
    if report["overhead_ms_p50"] is not None:
        lines += [
            "",
            f"one client: {report['overhead_ms_p50']:.1f} ms (p50) more than the {report['engine_ms_p50']:.1f} ms of "
            "the bare engine, one picture after the other",
        ]
    return "\n".join(lines) + "\n"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    return [f"| {' | '.join(map(str, row))} |" for row in (head, ("---",) * len(head), *rows)]


def _draw(report: Mapping[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    throughput, latency = figure.subplots(1, 2)
    levels = report["levels"]
    concurrency = [level["concurrency"] for level in levels]
    throughput.plot(concurrency, [level["per_s"] for level in levels], "o-", color="#3366aa", label="server")
    throughput.axhline(report["engine_per_s"], color="#222222", linestyle="--", label="bare engine in a loop")
    if report["original_per_s"]:
        throughput.axhline(report["original_per_s"], color="#888888", linestyle=":", label="original in a loop")
    throughput.set_ylim(bottom=0)
    throughput.set(title="pictures a second", xlabel="requests in flight")
    for name, colour in (("p50_ms", "#2a9d5c"), ("p95_ms", "#d1a22b"), ("p99_ms", "#d1622b")):
        label = name.removesuffix("_ms")
        latency.plot(concurrency, [level[name] for level in levels], "o-", color=colour, label=label)
    latency.set_ylim(bottom=0)
    latency.set(title="milliseconds", xlabel="requests in flight")
    for axes in (throughput, latency):
        axes.set_xscale("log", base=2)
        axes.set_xticks(concurrency, [str(one) for one in concurrency])
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(f"{report['profile']}; {report['hardware']}", fontsize=9)
    write_figure(path, figure, dpi=110)
