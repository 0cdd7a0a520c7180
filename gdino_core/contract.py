"""The tensor contract: names, defaults and version shared by server, build and clients.

The shapes and types stand in README.md and config.pbtxt; a change to any of them raises CONTRACT_VERSION, but
for a further optional input.
"""

from collections.abc import Mapping
from typing import Final

from gdino_core.errors import ConfigError

CONTRACT_VERSION: Final = 1
CONTRACT_VERSION_PARAMETER: Final = "contract_version"

# Models of the repository: grounding_dino is the ensemble that clients call, the others are its steps.
MODEL_GROUNDING_DINO: Final = "grounding_dino"
MODEL_PREPROCESS: Final = "preprocess"
MODEL_TEXT_ENCODER: Final = "text_encoder"
MODEL_DETECTOR: Final = "detector"
MODEL_POSTPROCESS: Final = "postprocess"

# Public inputs.
IMAGE: Final = "IMAGE"  # BYTES [1], an encoded picture; this or IMAGE_RGB
IMAGE_RGB: Final = "IMAGE_RGB"  # UINT8 [H,W,3], its pixels
PROMPT: Final = "PROMPT"  # BYTES [-1]
BOX_THRESHOLD: Final = "BOX_THRESHOLD"  # FP32 [1], optional
TEXT_THRESHOLD: Final = "TEXT_THRESHOLD"  # FP32 [1], optional
NMS_IOU: Final = "NMS_IOU"  # FP32 [1], optional
MAX_DETECTIONS: Final = "MAX_DETECTIONS"  # INT32 [1], optional
REMOVE_COMBINED: Final = "REMOVE_COMBINED"  # BOOL [1], optional

# Public outputs.
BOXES: Final = "BOXES"  # FP32 [n,4], x0 y0 x1 y1 in pixels of the original picture
SCORES: Final = "SCORES"  # FP32 [n]
LABELS: Final = "LABELS"  # BYTES [n]
LABEL_INDEX: Final = "LABEL_INDEX"  # INT32 [n], index into PROMPT, -1 for a caption

# Inside the ensemble; H x W is a resolution bucket, T a text bucket, Q the number of queries. A long list of labels is
# several rows of each: the picture with one prompt after the other.
PIXELS: Final = "PIXELS"  # UINT8 [3,H,W], RGB
VALID_HW: Final = "VALID_HW"  # INT32 [2], size of the picture inside PIXELS, the rest is padding
REQUEST: Final = "REQUEST"  # BYTES [1], see gdino_core.request; in the first row, the others are empty
INPUT_IDS: Final = "INPUT_IDS"  # INT32 [T]
POSITION_IDS: Final = "POSITION_IDS"  # INT32 [T]
PHRASE_IDS: Final = "PHRASE_IDS"  # INT32 [T], tokens attend to each other exactly when theirs are equal
TEXT_FEATURES: Final = "TEXT_FEATURES"  # FP32 [T,C]
LOGITS: Final = "LOGITS"  # FP32 [Q,T]
BOXES_CXCYWH: Final = "BOXES_CXCYWH"  # FP32 [Q,4], relative to the picture without its padding

# Triton's request parameter `priority`; requests without it are interactive.
PRIORITY_INTERACTIVE: Final = 1
PRIORITY_BULK: Final = 2

DEFAULT_BOX_THRESHOLD: Final = 0.35
DEFAULT_TEXT_THRESHOLD: Final = 0.25
DEFAULT_MAX_DETECTIONS: Final = 300
MAX_TOKENS: Final = 256  # [CLS] and [SEP] included; the width the model was trained with
STRIDE: Final = 32  # H and W of PIXELS are multiples of the backbone's stride


def check_contract_version(parameters: Mapping[str, str]) -> None:
    """Refuse a model whose config.pbtxt was written for another version of the contract.

    Args:
        parameters: names and string values of the `parameters` of a config.pbtxt.

    Raises:
        ConfigError: the version is missing or not CONTRACT_VERSION.
    """
    found = parameters.get(CONTRACT_VERSION_PARAMETER, "none")
    if found != str(CONTRACT_VERSION):
        raise ConfigError(
            f"config.pbtxt has contract_version {found}, the installed gdino_core speaks {CONTRACT_VERSION}",
            fix="assemble the repository again with the gdino_core that the server has installed",
        )
