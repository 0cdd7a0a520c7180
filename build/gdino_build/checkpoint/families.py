"""Models that are taken for GroundingDINO's, told by the names of their tensors."""

import re
from collections.abc import Collection

_TAKE_ANOTHER = "take a checkpoint of GroundingDINO"
_OWN_TEXT_ENCODER = "bert.embeddings.word_embeddings.weight"
# Name, a pattern that only names of this model match, what to do. Their text encoder is GroundingDINO's.
_VARIANTS = (
    (
        "MM-GroundingDINO as Hugging Face saves it",
        r"^(?:model\.decoder\.)?class_embed\.\d+\.bias$",
        f"its scores have a bias that GroundingDINO's have not; {_TAKE_ANOTHER}",
    ),
)
# The same of models without that text encoder; the first that matches counts.
_OTHERS = (
    (
        "MM-GroundingDINO, or GroundingDINO as mmdetection saves it",
        r"^language_model\.language_backbone\.",
        "mmdetection's Swin also keeps its patches in another order; take the checkpoint that it was made from, or "
        "convert it back to the original's names",
    ),
    ("GLIP", r"^(?:rpn\.head\.|language_backbone\.)", _TAKE_ANOTHER),
    ("Segment Anything", r"^(?:image_encoder|mask_decoder|sam_mask_decoder)\.", _TAKE_ANOTHER),
    ("DINO or Deformable DETR, which know no text", r"^class_embed\.\d+\.weight$", _TAKE_ANOTHER),
    ("DETR, which knows no text", r"^query_embed\.weight$", _TAKE_ANOTHER),
    (
        "BERT alone",
        r"^(?:embeddings\.word_embeddings\.weight|cls\.predictions\.)",
        "GroundingDINO's checkpoints hold their own BERT; take one of these",
    ),
    (
        "Swin alone",
        r"^layers\.\d+\.blocks\.\d+\.attn\.qkv\.",
        "GroundingDINO's checkpoints hold their own Swin; take one of these",
    ),
)


def other_family(names: Collection[str]) -> tuple[str, str] | None:
    """Name the model that tensors are of, if it is one of those, and what to do about it."""
    for family, pattern, fix in _VARIANTS if _OWN_TEXT_ENCODER in names else _OTHERS:
        if any(re.search(pattern, name) for name in names):
            return family, fix
    return None
