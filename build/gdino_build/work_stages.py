"""The stages that work is counted by, told by the paths of modules, which nodes of a graph have in their names."""

import re

# Paths of modules, in the order of the data; the first that fits counts. The same for the original's modules.
STAGES = (
    ("text encoder", r"bert|feat_map"),
    *((f"backbone, stage {stage + 1}", rf"backbone[./]0[./]layers[./]{stage}\b") for stage in range(4)),
    ("backbone, patches and norms", r"backbone"),
    ("input projection", r"input_proj"),
    ("fusion", r"encoder[./]fusion_layers"),
    ("text layers", r"encoder[./]text_layers"),
    ("encoder, deformable attention", r"encoder[./]layers[./]\d+[./]self_attn"),
    ("encoder, feed-forward and norms", r"encoder"),
    ("decoder", r"decoder|(?<!enc_out_)bbox_embed"),
    ("proposals, masks, places", r""),
)


def stage_of(path: str) -> str:
    """Stage of a node or module: `/encoder/fusion_layers.0/attn/MatMul` and its like."""
    return next(name for name, pattern in STAGES if re.search(pattern, path))
