"""How much accuracy a lower precision may cost, and how large its graphs may be."""

from dataclasses import dataclass

_EPS = 1e-9  # 84.7 - 84.5 is a little more than 0.2 in floating point


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a precision must keep; None where nothing is demanded.

    Attributes:
        ap_loss: most points of AP, of 100, that it may lose against FP32.
        size_ratio: most that both ONNX files may have of FP32's bytes.
        demo_size_ratio: the same for the demo, whose embedding table weighs most.
    """

    ap_loss: float | None = None
    size_ratio: float | None = None
    demo_size_ratio: float | None = None

    def size_limit(self, *, is_demo: bool) -> float | None:
        """The size_ratio of an architecture."""
        return self.demo_size_ratio if is_demo and self.demo_size_ratio is not None else self.size_ratio

    def describe(self, *, is_demo: bool) -> str:
        """In words, "" where nothing is demanded."""
        size = self.size_limit(is_demo=is_demo)
        parts = (
            [f"AP loss at most {self.ap_loss:g}"] if self.ap_loss is not None else [],
            [f"size at most {size:g}x"] if size is not None else [],
        )
        return ", ".join(part for one in parts for part in one)


GATES = {
    "fp16": Gate(ap_loss=0.2, size_ratio=0.52),
    "bf16": Gate(ap_loss=0.5),
    "int8": Gate(ap_loss=1.0, size_ratio=0.32, demo_size_ratio=0.42),
}
_NO_GATE = Gate()


def gate_of(precision: str) -> Gate:
    """The gate of a precision; of one without, FP32 for instance, a gate that demands nothing."""
    return GATES.get(precision, _NO_GATE)


def violations(
    precision: str,
    *,
    size_bytes: int,
    fp32_bytes: int,
    is_demo: bool,
    ap: float | None = None,
    fp32_ap: float | None = None,
) -> list[str]:
    """Say what is over which gate.

    Args:
        precision: such as "int8".
        size_bytes: of both ONNX files.
        fp32_bytes: of both ONNX files of FP32.
        is_demo: whether the architecture is the demo's.
        ap: average precision in points, 0 to 100; None where it was not measured, and then is not judged.
        fp32_ap: that of FP32 on the same pictures.

    Returns:
        A sentence for each gate that is not held.
    """
    gate = gate_of(precision)
    found = []
    if gate.ap_loss is not None and ap is not None and fp32_ap is not None:
        loss = fp32_ap - ap
        if not loss <= gate.ap_loss + _EPS:  # NaN is over every gate
            found.append(
                f"{precision} loses {loss:.2f} points of AP ({fp32_ap:.2f} to {ap:.2f}), the gate is {gate.ap_loss:g}"
            )
    limit = gate.size_limit(is_demo=is_demo)
    if limit is not None and not size_bytes <= limit * fp32_bytes + _EPS:
        found.append(
            f"{precision} has {size_bytes / fp32_bytes:.3f}x the bytes of fp32 ({size_bytes:,} of {fp32_bytes:,}), "
            f"the gate is {limit:g}x"
        )
    return found
