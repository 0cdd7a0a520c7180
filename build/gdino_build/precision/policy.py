"""What stays FP32 in each lower precision, and why; `gdino-build sensitivity` finds the candidates.

A group is named as in `groups.group_of`. What stays costs time and bytes, so each entry has a measured reason; the
differences are the demo checkpoint's when the group alone is lowered: mean over boxes, as fractions of the picture.
"""

import re
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from gdino_build.precision.groups import group_of


@dataclass(frozen=True, kw_only=True)
class KeptGroup:
    """Groups of nodes that stay FP32.

    Attributes:
        pattern: regular expression that matches the beginning of their names.
        precisions: in which they stay FP32.
        reason: what would be lost.
    """

    pattern: str
    precisions: tuple[str, ...]
    reason: str


KEPT_IN_FP32 = (
    KeptGroup(
        pattern=r"geometry, masks, proposals: (?!products)",
        precisions=("fp16", "bf16"),
        reason="places of tokens and anchors: FP16 has 2,048 steps across a picture, BF16 256; "
        "boxes move by 1.5e-4 and 1.2e-3",
    ),
    KeptGroup(
        pattern=r"decoder: arithmetic",
        precisions=("fp16", "bf16"),
        reason="boxes themselves, their logits and angles of up to 2 pi * 10,000 steps: they move by 1.4e-4 and 1.1e-3",
    ),
    KeptGroup(
        pattern=r"(encoder/layers/self_attn|decoder/layers/cross_attn): (arithmetic|sampling|norms and sums)",
        precisions=("fp16", "bf16"),
        reason="where to sample: a step of BF16 is half a cell of the finest level; boxes move by 5.0e-5 and 4.4e-4. "
        "Engines that have one operator for it compute the samples and their sum in FP32 anyway",
    ),
    KeptGroup(
        pattern=r"(enc_out_|decoder/)?bbox_embed",
        precisions=("bf16",),
        reason="the box heads: 2.9e-4 of BF16 go straight into boxes, 6.4e-5 if only the numbers between their layers "
        "are rounded; FP16 has enough digits, and keeps the bytes",
    ),
    KeptGroup(
        pattern=r"decoder/ref_point_head",
        precisions=("bf16",),
        reason="the place of a query, from sines of its box",
    ),
    KeptGroup(
        pattern=r"input_proj.*: (arithmetic|norms and sums)",
        precisions=("fp16", "bf16"),
        reason="group norm: sums over a whole map, which overflow FP16 and lose all small terms in BF16",
    ),
)


def is_lowered(node: gs.Node, precision: str) -> bool:
    """Whether a node computes in a lower precision."""
    group = group_of(node)
    return not any(precision in kept.precisions and re.match(kept.pattern, group) for kept in KEPT_IN_FP32)
