"""What a sensitivity scan found: a table to read, JSON and a bar chart."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gdino_build.precision.sensitivity import Sensitivity
from gdino_build.whole_file import write_figure, write_json

_MOST_ROWS = 30  # of the table and the chart; the JSON has all


def format_sensitivities(found: Sequence[Sensitivity]) -> str:
    """The most sensitive groups as a table."""
    lines = [f"{'group':<58}{'nodes':>6}{'box mean':>10}{'box max':>10}{'logit max':>10}{'moved':>6}"]
    lines += [
        f"{_name(one):<58}{one.nodes:>6}{one.box_mean:>10.1e}{one.box_max:>10.1e}{one.logit_max:>10.1e}"
        f"{one.moved_proposals:>6}"
        for one in _by_error(found)[:_MOST_ROWS]
    ]
    if len(found) > _MOST_ROWS:
        lines.append(f"... and {len(found) - _MOST_ROWS} groups with smaller differences")
    return "\n".join(lines)


def write_sensitivities(found: Sequence[Sensitivity], path: Path) -> None:
    """Write all groups as JSON, the most sensitive first; the file appears only when it is whole."""
    write_json(path, [asdict(one) for one in _by_error(found)])


def draw_sensitivities(found: Sequence[Sensitivity], precision: str, path: Path) -> None:
    """Draw the mean difference of boxes of the most sensitive groups as bars, and write them as PNG."""
    from matplotlib.figure import Figure

    shown = _by_error(found)[:_MOST_ROWS][::-1]
    figure = Figure(figsize=(10, 1.2 + 0.25 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh([_name(one) for one in shown], [one.box_mean for one in shown], color="#3366aa")
    axes.set_xscale("log")
    axes.set_xlabel(f"mean difference of boxes, fraction of the picture, when the group alone is {precision.upper()}")
    axes.grid(axis="x", alpha=0.3)
    write_figure(path, figure, dpi=100)


def _by_error(found: Sequence[Sensitivity]) -> list[Sensitivity]:
    return sorted(found, key=lambda one: one.box_mean, reverse=True)


def _name(one: Sensitivity) -> str:
    return one.group if one.graph == "detector" else f"{one.graph}: {one.group}"
