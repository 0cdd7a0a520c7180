"""Write the table of all precisions: out/accuracy.json for programs, .md to read, .png to look at."""

from pathlib import Path

from gdino_build.accuracy.chart import draw_table
from gdino_build.accuracy.table import Row, Table
from gdino_build.whole_file import write_json, write_text
from gdino_core.errors import ParityError

_NAMES = {"original": "original, PyTorch FP32"}


def write_table(table: Table, out: Path) -> list[Path]:
    """Write accuracy.json, accuracy.md and accuracy.png; each appears only when it is whole."""
    paths = [out / f"accuracy.{suffix}" for suffix in ("json", "md", "png")]
    write_json(paths[0], table.to_dict())
    write_text(paths[1], format_table(table))
    draw_table(table, paths[2])
    return paths


def check_table(table: Table) -> None:
    """Refuse a table with a row that is over its gate.

    Raises:
        ParityError: it names each gate that is not held.
    """
    if over := [violation for row in table.rows for violation in row.violations]:
        raise ParityError("; ".join(over), fix="improve the variant: gdino_build/precision says what stays in FP32")


def format_table(table: Table) -> str:
    """The table in Markdown, with what it was measured on below it."""
    head = ("", "AP", "AP loss", "AP50", "AP75", "AR", "size", "of FP32", "latency", "peak memory", "gate", "through")
    lines = [head, ("---", *["---:"] * 9, "---", "---"), *map(_cells, table.rows)]
    notes = (
        f"{table.scenes} pictures, {table.hardware}. Size: both ONNX files; of the original, its parameters. Latency: "
        "median of single requests, interleaved, from the encoded picture to the boxes. Peak memory: VmHWM during "
        "these requests, summed over the server and the processes of its models (what they share counts in each)."
    )
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + f"\n\n{notes}\n"


def _cells(row: Row) -> tuple[str, ...]:
    one = row.measured
    judged = f"{row.gate}: {'held' if row.passed else 'NOT HELD'}" if row.gate else ""
    return (
        _NAMES.get(one.precision, one.precision.upper()),
        f"{one.ap:.2f}",
        "" if row.ap_loss is None else f"{row.ap_loss + 0.0:.2f}",
        f"{one.ap50:.2f}",
        f"{one.ap75:.2f}",
        f"{one.ar:.2f}",
        f"{one.bytes / 1e6:.1f} MB",
        "" if row.size_ratio is None else f"{row.size_ratio:.2f}x",
        "" if one.latency_ms is None else f"{one.latency_ms:.1f} ms",
        "" if one.peak_bytes is None else f"{one.peak_bytes / 2**20:.0f} MiB",
        judged,
        one.through,
    )
