"""Write what the GPU check found: a table to read and the same as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gdino_build.gpu_check.comparison import MATCH
from gdino_build.gpu_check.contenders import ORIGINAL, Absent
from gdino_build.gpu_check.measurement import PASSES, Row
from gdino_build.whole_file import write_json, write_text

_MIB = 2**20
_HEAD = (
    *("runner", "version", "precision", "batch", "median ms", "p95 ms", "images/s", "x original FP32", "peak MiB"),
    *("found", "median off: logits, boxes", "forced, largest: logits, boxes", "result"),
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """All rows of one run.

    Attributes:
        hardware: name and value of what it ran on.
        versions: of our packages; those of the runners stand in their rows.
        model: its architecture.
        image_hw: height and width of the pictures that were timed.
        tokens: of their prompts.
        rounds: in which all took turns, of PASSES timed passes each.
        rows: by contender and batch.
        absent: what could not be run.
    """

    hardware: Mapping[str, str | int]
    versions: Mapping[str, str]
    model: str
    image_hw: tuple[int, int]
    tokens: int
    rounds: int
    rows: Sequence[Row]
    absent: Sequence[Absent]

    def faults(self) -> list[str]:
        """What failed, or is not within the tolerance of FP32."""
        failed = [f"{_name(row)}: {row.failure}" for row in self.rows if row.failure]
        wrong = [f"{_name(row)} differs" for row in self.rows if row.compared and row.compared.passed is False]
        return failed + wrong

    def to_dict(self) -> dict[str, Any]:
        """As gpu-check.json has it."""
        return {
            "hardware": dict(self.hardware),
            "versions": dict(self.versions),
            "model": self.model,
            "shape": {"height": self.image_hw[0], "width": self.image_hw[1], "tokens": self.tokens},
            "rounds": self.rounds,
            "passes": PASSES,
            "rows": [_row_to_dict(row, self._speedup(row)) for row in self.rows],
            "absent": [asdict(one) for one in self.absent],
        }

    def to_markdown(self) -> str:
        """As gpu-check.md has it."""
        height, width = self.image_hw
        lines = [
            f"{self.model}, {height}x{width}, {self.tokens} tokens; median and 95th percentile of "
            f"{self.rounds} x {PASSES} passes, interleaved, from inputs on the device to outputs on the device.",
            "",
            ", ".join(f"{name} {value}" for name, value in {**self.hardware, **self.versions}.items()),
            "",
            f"| {' | '.join(_HEAD)} |",
            "|" + "---|" * len(_HEAD),
            *(self._line(row) for row in self.rows),
            "",
            f"Against the golden, the original's answers in FP32. found: those of its best queries that have one "
            f"within {MATCH.logit} in logits and {MATCH.box} in boxes, and how far it is in the median. forced: the "
            "largest differences when the original's proposals are given. told: a lower precision is judged by its "
            "AP, or there is no golden.",
        ]
        if self.absent:
            lines += ["", "| not run | precision | why | what helps |", "|---|---|---|---|"]
            lines += [
                f"| {one.runner} | {one.precision} | {_cell(one.reason)} | {_cell(one.fix)} |" for one in self.absent
            ]
        return "\n".join(lines) + "\n"

    def _line(self, row: Row) -> str:
        times = [_number(value, 2) for value in (row.median_ms, row.p95_ms, row.images_per_s, self._speedup(row))]
        peak = "" if row.peak_bytes is None else f"{row.peak_bytes / _MIB:.0f}"
        cells = [row.runner, row.version, row.precision, str(row.batch), *times, peak]
        if compared := row.compared:
            matched, forced = compared.matched, compared.forced
            cells += [f"{matched.found} of {matched.queries}", f"{matched.median_logit:.1e}, {matched.median_box:.1e}"]
            cells += [f"{forced.max_abs_logit:.1e}, {forced.max_abs_box:.1e}" if forced else "takes no proposals"]
        else:
            cells += ["", "", ""]
        return f"| {' | '.join([*cells, _result(row)])} |"

    def _speedup(self, row: Row) -> float | None:
        """How many times as fast as the original in FP32 at the same batch size."""
        for one in self.rows:
            if (one.runner, one.precision, one.batch) == (ORIGINAL, "fp32", row.batch) and one.median_ms:
                return one.median_ms / row.median_ms if row.median_ms else None
        return None


def write_report(report: Report, folder: Path, name: str) -> list[Path]:
    """Write <name>.json and <name>.md; tells their paths."""
    json_path, markdown_path = folder / f"{name}.json", folder / f"{name}.md"
    write_json(json_path, report.to_dict())
    write_text(markdown_path, report.to_markdown())
    return [json_path, markdown_path]


def _row_to_dict(row: Row, speedup: float | None) -> dict[str, Any]:
    times = {name: getattr(row, name) for name in ("median_ms", "p95_ms", "images_per_s")}
    return {**asdict(row), **times, "speedup_vs_original": speedup, "result": _result(row)}


def _result(row: Row) -> str:
    if row.failure:
        return "failed"
    if row.compared is None or row.compared.passed is None:
        return "told"
    return "passed" if row.compared.passed else "differs"


def _name(row: Row) -> str:
    return f"{row.runner} {row.precision}, batch {row.batch}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")
