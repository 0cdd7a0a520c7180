"""GroundingDINO as an inference module that exports to ONNX, with the official checkpoint's parameter names.

Open the files in the order in which data flows:

    config           sizes of Swin-T OGC, Swin-B COGCOOR and the demo
    text             BERT over phrases, projected to the detector's width
    swin             the image backbone
    geometry         masks, position embeddings and anchors, all from VALID_HW
    projection       feature maps to the transformer's width
    fusion           image and text look at each other (re-associated, exact)
    attention        plain and deformable attention
    transformer      encoder, two-stage proposals, decoder
    grounding_dino   the whole, and the two modules that are exported
"""

from gdino_build.model.config import (
    ARCHITECTURES,
    DEMO,
    SWINB_COGCOOR,
    SWINT_OGC,
    BertConfig,
    ModelConfig,
    SwinConfig,
)
from gdino_build.model.grounding_dino import Detector, GroundingDino, TextEncoder

__all__ = [
    "ARCHITECTURES",
    "DEMO",
    "SWINB_COGCOOR",
    "SWINT_OGC",
    "BertConfig",
    "Detector",
    "GroundingDino",
    "ModelConfig",
    "SwinConfig",
    "TextEncoder",
]
