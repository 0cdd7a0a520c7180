"""Refuse what an engine cannot work on, before it sees it.

Clients can call the text encoder and the detector directly, as `verify` does with frames and prompts that fill no
bucket. An engine that is given sizes it cannot work on fails in its midst, larger ones than planned take memory that
is not there, and indices out of range read memory that is not theirs.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gdino_core import contract
from gdino_core.errors import TensorError
from gdino_core.settings import PreprocessSettings

VOCABULARY_SIZE: Final = 30_522  # of bert-base-uncased

_FIX: Final = f"call {contract.MODEL_GROUNDING_DINO}, or send what {contract.MODEL_PREPROCESS} answers"
_LARGEST: Final = {contract.INPUT_IDS: VOCABULARY_SIZE - 1, contract.POSITION_IDS: contract.MAX_TOKENS - 1}


def check_engine_inputs(inputs: Mapping[str, npt.NDArray[Any]], settings: PreprocessSettings) -> None:
    """Check the inputs of the text encoder or the detector.

    Args:
        inputs: arrays by the names of the contract, each with its batch axis.
        settings: what they are prepared with.

    Raises:
        TensorError: there are no rows, no bucket holds a size, or a value is out of its range.
    """
    for name, array in inputs.items():
        if not len(array):
            raise TensorError(f"{name} has no rows: {list(array.shape)}", fix=_FIX)
    if contract.PIXELS in inputs:
        _check_picture(inputs[contract.PIXELS], inputs[contract.VALID_HW], settings)
    tokens = inputs[contract.PHRASE_IDS].shape[1]
    if not 1 <= tokens <= max(settings.text_buckets):
        raise TensorError(f"PHRASE_IDS has {tokens} tokens, the limit is {max(settings.text_buckets)}", fix=_FIX)
    for name in (contract.INPUT_IDS, contract.POSITION_IDS, contract.TEXT_FEATURES):
        if name in inputs and inputs[name].shape[1] != tokens:
            raise TensorError(f"{name} has {inputs[name].shape[1]} tokens, PHRASE_IDS {tokens}", fix=_FIX)
    for name, largest in _LARGEST.items():
        if name in inputs and not (inputs[name].min() >= 0 and inputs[name].max() <= largest):
            raise TensorError(f"{name} has values outside 0 to {largest}", fix=_FIX)
    if contract.TEXT_FEATURES in inputs and not np.isfinite(inputs[contract.TEXT_FEATURES]).all():
        raise TensorError("TEXT_FEATURES has a NaN or an infinity", fix=_FIX)


def _check_picture(
    pixels: npt.NDArray[np.uint8], valid_hw: npt.NDArray[np.int32], settings: PreprocessSettings
) -> None:
    height, width = pixels.shape[2:]
    buckets = settings.resolution_buckets
    is_held = any(height <= bucket_h and width <= bucket_w for bucket_h, bucket_w in buckets)
    # In a smaller frame there may be fewer places than objects that the detector proposes.
    is_large_enough = height * width >= min(map(math.prod, buckets))
    if height % contract.STRIDE or width % contract.STRIDE or not (is_held and is_large_enough):
        listed = ", ".join(f"{bucket_h}x{bucket_w}" for bucket_h, bucket_w in buckets)
        raise TensorError(f"PIXELS is {height}x{width} (height x width), the buckets are {listed}", fix=_FIX)
    if (valid_hw < 1).any() or (valid_hw > (height, width)).any():
        raise TensorError(f"VALID_HW {valid_hw.tolist()} is not within 1x1 to {height}x{width}", fix=_FIX)
