"""What `verify` found: one row for each stage, as a line to read and in verify.json."""

import math
from dataclasses import dataclass
from pathlib import Path

from gdino_build.parity import Difference, Tolerance
from gdino_build.whole_file import write_json

# FP32 sums in another order: what remains when the TopK ties are taken out (see parity).
TOLERANCE = Tolerance(logit=1e-4, box=1e-5)
TABLE_HEAD = f"{'stage':<12}{'against':<12}{'cases':>6}{'logit':>11}{'box':>11}{'unmatched':>11}  result"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of verify.json; without a tolerance, the difference is told and judged elsewhere."""

    stage: str
    against: str
    cases: int
    difference: Difference
    tolerance: Tolerance | None

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance; without one, whether it is a number."""
        if self.tolerance is None:
            return self.cases > 0 and math.isfinite(self.difference.max_abs_logit + self.difference.max_abs_box)
        return self.cases > 0 and self.difference.within(self.tolerance)

    def to_dict(self) -> dict[str, object]:
        """The row as verify.json has it."""
        return {
            "stage": self.stage,
            "against": self.against,
            "cases": self.cases,
            "max_abs_logit": _json_number(self.difference.max_abs_logit),
            "max_abs_box": _json_number(self.difference.max_abs_box),
            "unmatched_queries": self.difference.unmatched_queries,
            "tolerance": self.tolerance and {"logit": self.tolerance.logit, "box": self.tolerance.box},
            "passed": self.passed,
        }


def _json_number(value: float) -> float | None:
    """The value; null for NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None


def format_row(row: Row) -> str:
    """The row as a line below TABLE_HEAD."""
    return (
        f"{row.stage:<12}{row.against:<12}{row.cases:>6}{row.difference.max_abs_logit:>11.1e}"
        f"{row.difference.max_abs_box:>11.1e}{row.difference.unmatched_queries:>11}  "
        + ("told" if row.passed and row.tolerance is None else "passed" if row.passed else "FAILED")
    )


def write_rows(rows: list[Row], path: Path) -> None:
    """Write verify.json; it appears only when it is whole."""
    write_json(path, [row.to_dict() for row in rows])
