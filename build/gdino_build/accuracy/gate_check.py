"""Refuse a variant that is over a gate, by its size and by what was measured of just its graphs."""

from collections.abc import Mapping
from pathlib import Path

from gdino_build.accuracy.gates import violations
from gdino_build.accuracy.record import AccuracyRecord, graphs_bytes, graphs_sha256, read_records
from gdino_core.errors import ConfigError

LEAST_SCENES = 100  # on fewer pictures, chance moves AP by more than the gates


def check_gates(
    *, out: Path, graphs: Path, fp32_graphs: Path, precision: str, is_demo: bool, accepted: str = ""
) -> list[str]:
    """Refuse a variant that is over a gate.

    Sizes are always judged. Accuracy is where a record of just these graphs and one of just these FP32 graphs, on the
    same pictures, are below `out`; records of other graphs, or of fewer than LEAST_SCENES pictures, are ignored.

    Args:
        out: root of all outputs; out/*/accuracy.json are the records.
        graphs: folder of both ONNX files of the variant.
        fp32_graphs: folder of those of FP32.
        precision: of the variant.
        is_demo: whether the architecture is the demo's.
        accepted: why the profile accepts what is over a gate, `accept_over_gate` of its [engine]; "" for not.

    Returns:
        What is over a gate and accepted, a sentence each.

    Raises:
        ConfigError: something is over its gate, and not accepted.
        ExportError: a graph is missing.
    """
    ap, fp32_ap = _measured(list(read_records(out)), graphs_sha256(graphs), graphs_sha256(fp32_graphs))
    found = violations(
        precision,
        size_bytes=graphs_bytes(graphs),
        fp32_bytes=graphs_bytes(fp32_graphs),
        is_demo=is_demo,
        ap=ap,
        fp32_ap=fp32_ap,
    )
    if found and not accepted.strip():
        raise ConfigError(
            "; ".join(found),
            fix="improve the variant (gdino_build/precision says what stays in FP32), or say in the profile why it is "
            'accepted: [engine] accept_over_gate = "the reason"',
        )
    return found


def _measured(
    records: list[AccuracyRecord], sha256: Mapping[str, str], fp32_sha256: Mapping[str, str]
) -> tuple[float | None, float | None]:
    """AP of a variant and of FP32, from the two records on the same pictures; of several the most pictures count."""
    pairs = [
        (own.scenes, own.ap, fp32.ap)
        for own in records
        if own.onnx_sha256 == sha256 and own.scenes >= LEAST_SCENES
        for fp32 in records
        if fp32.onnx_sha256 == fp32_sha256
        if (fp32.dataset_sha256, fp32.scenes) == (own.dataset_sha256, own.scenes)
    ]
    if not pairs:
        return None, None
    _, ap, fp32_ap = max(pairs)
    return ap, fp32_ap
