"""The precisions side by side, each against FP32 and its gate."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gdino_build.accuracy.gates import gate_of, violations

ORDER = ("original", "fp32", "bf16", "fp16", "int8")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of one precision.

    Attributes:
        precision: one of ORDER.
        ap: average precision in points, 0 to 100, as are the next three.
        ap50: at IoU 0.50.
        ap75: at IoU 0.75.
        ar: average recall with 100 detections a picture.
        bytes: of both ONNX files; of the original's parameters.
        latency_ms: median of single requests, interleaved with the others; None for an emulation.
        peak_bytes: most memory that the processes held during these requests; None for an emulation.
        through: what computed and what it was asked through.
    """

    precision: str
    ap: float
    ap50: float
    ap75: float
    ar: float
    bytes: int
    latency_ms: float | None
    peak_bytes: int | None
    through: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: what was measured, and how it stands to FP32.

    Attributes:
        measured: of this precision.
        ap_loss: FP32's AP less this one's, in points; None where there is no FP32.
        size_ratio: bytes as a multiple of FP32's; None where there is no FP32.
        gate: what is demanded, in words; "" for nothing.
        violations: what is over its gate, a sentence each.
    """

    measured: Measured
    ap_loss: float | None
    size_ratio: float | None
    gate: str
    violations: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate is held."""
        return not self.violations

    def to_dict(self) -> dict[str, Any]:
        """The row as accuracy.json has it."""
        return {
            **asdict(self.measured),
            "ap_loss": self.ap_loss,
            "size_ratio": self.size_ratio,
            "gate": self.gate,
            "passed": self.passed,
        }


@dataclass(frozen=True, kw_only=True)
class Table:
    """All precisions of one model on one data set.

    Attributes:
        hardware: that it was measured on.
        scenes: number of pictures.
        is_demo: whether the model is the demo, which has a gate of its own.
        rows: in ORDER.
    """

    hardware: str
    scenes: int
    is_demo: bool
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """The table as accuracy.json has it."""
        return {"hardware": self.hardware, "scenes": self.scenes, "rows": [row.to_dict() for row in self.rows]}


def make_table(measured: Sequence[Measured], *, hardware: str, scenes: int, is_demo: bool) -> Table:
    """Compare each precision with FP32 and with its gate.

    Args:
        measured: in any order; without FP32 nothing is judged.
        hardware: that it was measured on.
        scenes: number of pictures.
        is_demo: whether the architecture is the demo's, which has a gate of its own.
    """
    fp32 = next((one for one in measured if one.precision == "fp32"), None)
    rows = []
    for one in sorted(measured, key=lambda one: ORDER.index(one.precision)):
        if fp32 is None:
            rows.append(Row(measured=one, ap_loss=None, size_ratio=None, gate="", violations=()))
            continue
        over = violations(
            one.precision,
            size_bytes=one.bytes,
            fp32_bytes=fp32.bytes,
            is_demo=is_demo,
            ap=one.ap,
            fp32_ap=fp32.ap,
        )
        rows.append(
            Row(
                measured=one,
                ap_loss=round(fp32.ap - one.ap, 3),
                size_ratio=round(one.bytes / fp32.bytes, 4),
                gate=gate_of(one.precision).describe(is_demo=is_demo),
                violations=tuple(over),
            )
        )
    return Table(hardware=hardware, scenes=scenes, is_demo=is_demo, rows=tuple(rows))
