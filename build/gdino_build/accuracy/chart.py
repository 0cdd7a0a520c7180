"""Draw the accuracy of all precisions against their size and latency, with the gates."""

from pathlib import Path
from typing import TYPE_CHECKING

from gdino_build.accuracy.gates import gate_of
from gdino_build.accuracy.table import Row, Table
from gdino_build.whole_file import write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"original": "#888888", "fp32": "#222222", "bf16": "#3366aa", "fp16": "#2a9d5c", "int8": "#d1622b"}
_GATE_COLOUR = "#cc0000"


def draw_table(table: Table, path: Path) -> None:
    """Write a PNG of three panels, AP lost, size, and AP over latency; it appears only when it is whole."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.4), layout="constrained")
    loss, size, latency = figure.subplots(1, 3)
    for row in table.rows:
        gate = gate_of(row.measured.precision)
        if row.ap_loss is not None and row.measured.precision != "fp32":
            _bar(loss, row, row.ap_loss, gate.ap_loss, f"{row.ap_loss + 0.0:.2f}")
        if row.size_ratio is not None:
            _bar(size, row, row.size_ratio, gate.size_limit(is_demo=table.is_demo), f"{row.size_ratio:.2f}x")
    for axes, title in ((loss, "AP lost against FP32, points"), (size, "size, as a multiple of FP32's")):
        axes.set_title(title)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.margins(y=0.12)
        axes.grid(axis="y", alpha=0.3)
    _draw_latency(latency, table)
    figure.suptitle(f"{table.scenes} pictures, {table.hardware}", fontsize=9)
    write_figure(path, figure, dpi=110)


def _bar(axes: "Axes", row: Row, value: float, gate: float | None, figure: str) -> None:
    """A bar with its figure below it, and its gate as a line across it."""
    name = f"{row.measured.precision}\n{figure}"
    axes.bar(name, value, width=0.6, color=_COLOURS[row.measured.precision], alpha=0.8)
    if gate is not None:
        axes.plot([name], [gate], marker="_", markersize=48, markeredgewidth=2.5, color=_GATE_COLOUR)
        axes.annotate(
            f"gate {gate:g}", (name, gate), (0, 4), textcoords="offset points", ha="center", color=_GATE_COLOUR
        )


def _draw_latency(axes: "Axes", table: Table) -> None:
    """AP over latency, a point a row; below FP32, how far each precision may fall."""
    fp32 = next((row.measured for row in table.rows if row.measured.precision == "fp32"), None)
    for row in table.rows:
        one = row.measured
        if one.latency_ms is None:
            continue
        colour, label = _COLOURS[one.precision], f"{one.precision}: AP {one.ap:.2f}, {one.latency_ms:.0f} ms"
        axes.plot([one.latency_ms], [one.ap], "o", markersize=11, color=colour, label=label)
        most = gate_of(one.precision).ap_loss
        if most is not None and fp32 is not None:
            axes.axhline(fp32.ap - most, color=colour, linestyle="--", linewidth=1.2, label=f"gate of {one.precision}")
    axes.set_title("AP over latency")
    axes.set_xlabel("milliseconds, median of single requests")
    axes.margins(0.15)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize=8)
