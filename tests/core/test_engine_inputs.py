"""What an engine cannot work on is refused with the tensor's name before it sees it."""

from typing import Any

import numpy as np
import pytest

from gdino_core.engine_inputs import check_engine_inputs
from gdino_core.errors import TensorError
from gdino_core.settings import PreprocessSettings

SETTINGS = PreprocessSettings(
    short_side=64, long_side=128, resolution_buckets=((64, 160), (160, 64), (32, 256), (256, 32)), text_buckets=(16, 32)
)


def detector_inputs(rows: int = 2, tokens: int = 16, frame: tuple[int, int] = (64, 160)) -> dict[str, Any]:
    return {
        "PIXELS": np.zeros((rows, 3, *frame), np.uint8),
        "VALID_HW": np.full((rows, 2), 64, np.int32),
        "TEXT_FEATURES": np.zeros((rows, tokens, 8), np.float32),
        "POSITION_IDS": np.zeros((rows, tokens), np.int32),
        "PHRASE_IDS": np.full((rows, tokens), -7, np.int32),
    }


def text_inputs(**changes: Any) -> dict[str, Any]:
    return {name: np.zeros((1, 16), np.int32) for name in ("INPUT_IDS", "POSITION_IDS", "PHRASE_IDS")} | changes


def test_what_preprocessing_makes_is_taken() -> None:
    check_engine_inputs(detector_inputs(), SETTINGS)
    check_engine_inputs(
        detector_inputs(tokens=32, frame=(256, 32)) | {"VALID_HW": np.array([[1, 1], [256, 32]])}, SETTINGS
    )
    check_engine_inputs(detector_inputs(tokens=7, frame=(64, 128)), SETTINGS)  # verify's frames and prompts fill none
    check_engine_inputs(text_inputs(INPUT_IDS=np.full((1, 16), 30_521, np.int32)), SETTINGS)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (detector_inputs(frame=(100, 100)), "PIXELS is 100x100 .* the buckets are 64x160"),
        (detector_inputs(frame=(64, 144)), "PIXELS is 64x144"),
        (detector_inputs(frame=(160, 160)), "PIXELS is 160x160"),
        (detector_inputs(frame=(32, 32)), "PIXELS is 32x32"),
        (detector_inputs(rows=0), "PIXELS has no rows"),
        (detector_inputs(tokens=33), "PHRASE_IDS has 33 tokens, the limit is 32"),
        (detector_inputs(tokens=0), "PHRASE_IDS has 0 tokens"),
        (detector_inputs() | {"VALID_HW": np.array([[64, 160], [0, 5]])}, r"VALID_HW \[\[64, 160\], \[0, 5\]\] is not"),
        (detector_inputs() | {"VALID_HW": np.array([[64, 161]] * 2)}, "within 1x1 to 64x160"),
        (detector_inputs() | {"POSITION_IDS": np.full((2, 16), 256)}, "POSITION_IDS has values outside 0 to 255"),
        (detector_inputs() | {"TEXT_FEATURES": np.full((2, 16, 8), np.nan)}, "TEXT_FEATURES has a NaN"),
        (detector_inputs() | {"TEXT_FEATURES": np.zeros((2, 32, 8))}, "TEXT_FEATURES has 32 tokens, PHRASE_IDS 16"),
        (text_inputs(INPUT_IDS=np.full((1, 16), 30_522)), "INPUT_IDS has values outside 0 to 30521"),
        (text_inputs(INPUT_IDS=np.full((1, 16), -1)), "INPUT_IDS has values outside"),
        (text_inputs(POSITION_IDS=np.zeros((1, 32), np.int32)), "POSITION_IDS has 32 tokens"),
    ],
)
def test_what_no_engine_works_on_is_refused(inputs: dict[str, Any], said: str) -> None:
    with pytest.raises(TensorError, match=said) as caught:
        check_engine_inputs(inputs, SETTINGS)
    assert "fix: call grounding_dino" in str(caught.value)
