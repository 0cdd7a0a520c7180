"""Lay a batch into the optimisation profile that takes it, with padding that does not show."""

from collections.abc import Sequence

import numpy as np

from gdino_build.parity import Array, Arrays
from gdino_build.tensorrt.optimisation_profiles import OptimisationProfile
from gdino_core.contract import INPUT_IDS, PHRASE_IDS, PIXELS, POSITION_IDS, VALID_HW
from gdino_core.errors import ExportError

Sizes = tuple[int, ...]


def fit_to_profile(inputs: Arrays, profiles: Sequence[OptimisationProfile]) -> tuple[int, dict[str, Array]]:
    """Choose the smallest profile that takes a batch, and pad the batch to it.

    Args:
        inputs: of the text encoder and of the detector but its text features; others are left out.
        profiles: of the detector's plan.

    Returns:
        Number of the profile, and the inputs: pictures at the top left of a black frame, prompts with padding at the
        end; see `contract` for both.

    Raises:
        ExportError: the batch fits none.
    """
    frames = {index: _frame(inputs, profile) for index, profile in enumerate(profiles)}
    fitting = {index: frame for index, frame in frames.items() if frame is not None}
    if not fitting:
        raise ExportError(
            f"PIXELS {inputs[PIXELS].shape} with {inputs[PHRASE_IDS].shape[1]} tokens fits no profile of the plan",
            fix="add a bucket, or raise max_batch_size, and make engines again",
        )
    chosen = min(fitting, key=lambda index: fitting[index][0] * fitting[index][1])
    height, width, tokens = fitting[chosen]
    return chosen, {
        PIXELS: _pad_end(inputs[PIXELS], (*inputs[PIXELS].shape[:2], height, width)),
        VALID_HW: inputs[VALID_HW],
        INPUT_IDS: _pad_tokens(inputs[INPUT_IDS], tokens),
        POSITION_IDS: _pad_tokens(inputs[POSITION_IDS], tokens),
        PHRASE_IDS: _pad_phrases(inputs[PHRASE_IDS], tokens),
    }


def _frame(inputs: Arrays, profile: OptimisationProfile) -> tuple[int, int, int] | None:
    """Height, width and tokens to pad to; None where the profile does not take the batch."""
    pixels = _sizes_within(inputs[PIXELS].shape, profile[PIXELS].min, profile[PIXELS].max)
    tokens = _sizes_within(inputs[PHRASE_IDS].shape, profile[PHRASE_IDS].min, profile[PHRASE_IDS].max)
    if pixels is None or tokens is None or pixels[0] != inputs[PIXELS].shape[0]:
        return None
    return pixels[2], pixels[3], tokens[1]


def _sizes_within(sizes: Sizes, low: Sizes, high: Sizes) -> Sizes | None:
    if any(size > most for size, most in zip(sizes, high, strict=True)):
        return None
    return tuple(map(max, sizes, low))


def _pad_end(values: Array, shape: Sizes) -> Array:
    return np.pad(values, [(0, wanted - found) for wanted, found in zip(shape, values.shape, strict=True)])


def _pad_tokens(ids: Array, tokens: int) -> Array:
    return _pad_end(ids, (ids.shape[0], tokens))


def _pad_phrases(ids: Array, tokens: int) -> Array:
    """Negative ids that no other token of the row has."""
    padding = np.arange(tokens - ids.shape[1])
    fresh = np.minimum(ids.min(axis=1, keepdims=True), 0) - 1 - padding
    return np.concatenate((ids, fresh.astype(ids.dtype)), axis=1)
