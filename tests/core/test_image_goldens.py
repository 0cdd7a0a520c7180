"""Pictures become the pixels that the original's transform makes of them; its answers are in tests/goldens."""

import hashlib

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from gdino_build.pictures import draw_picture
from gdino_build.profile import load_profile
from gdino_core.errors import ImageError
from gdino_core.image import PreparedImage, prepare_image, preprocess_image, resized_hw
from gdino_core.settings import PreprocessSettings
from tests.core.goldens import FOLDER, Case, read_golden

SETTINGS = load_profile("swint-cpu").preprocess
SETTINGS_BY_SIDES = {
    (settings.short_side, settings.long_side): settings for settings in (SETTINGS, load_profile("demo-cpu").preprocess)
}
PICTURES = read_golden("pictures")["cases"]
RESIZED = [case for case in PICTURES if "error" not in case]
FAILING = [case for case in PICTURES if "error" in case]
RESIZE = read_golden("resize")


def named(cases: list[Case]) -> list[object]:
    return [pytest.param(case, id=case["file"]) for case in cases]


def sha256(array: npt.NDArray[np.generic]) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def settings_of(case: Case) -> PreprocessSettings:
    return SETTINGS_BY_SIDES[case["short_side"], case["long_side"]]


def valid_pixels(prepared: PreparedImage) -> npt.NDArray[np.uint8]:
    """Return the picture without its padding, uint8 [3, h, w], after a look at the padding."""
    height, width = prepared.valid_hw.tolist()
    assert not prepared.pixels[:, height:].any()
    assert not prepared.pixels[:, :, width:].any()
    return np.ascontiguousarray(prepared.pixels[:, :height, :width])


def normalised(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Follow torchvision's ToTensor and Normalize, as util/inference.py, load_image() calls them."""
    mean, std = (
        np.array(values, dtype=np.float32)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    result: npt.NDArray[np.float32] = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return result


@pytest.mark.parametrize("case", named(RESIZED))
def test_a_picture_of_every_kind_has_the_originals_pixels_to_the_last_bit(case: Case) -> None:
    prepared = preprocess_image((FOLDER / "pictures" / case["file"]).read_bytes(), SETTINGS)
    assert prepared.image_hw.tolist() == case["image_hw"]
    assert prepared.valid_hw.tolist() == case["resized_hw"]
    pixels = valid_pixels(prepared)
    corners = pixels[:, [0, 0, -1, -1], [0, -1, 0, -1]].T
    assert corners.tolist() == case["corners"]  # says more than a hash does, where it fails
    assert sha256(np.ascontiguousarray(pixels.transpose(1, 2, 0))) == case["pixels_sha256"]
    # What the original hands to its model can be computed from PIXELS without loss.
    assert sha256(normalised(pixels)) == case["normalised_sha256"]


@pytest.mark.parametrize("case", named(FAILING))
def test_a_picture_that_the_original_fails_to_resize_is_refused_with_a_sentence(case: Case) -> None:
    assert case["error"] == "height and width must be > 0"
    height, width = case["image_hw"]
    with pytest.raises(ImageError, match=f"the picture of {height}x{width} .* is too thin") as caught:
        preprocess_image((FOLDER / "pictures" / case["file"]).read_bytes(), SETTINGS)
    assert caught.value.fix == "cut it into pieces that are less than 2666 times as long as they are wide"


def test_only_orientation_and_16_bit_gray_are_read_otherwise_than_by_the_original() -> None:
    differing = {case["file"].rpartition(".")[0] for case in PICTURES if case.get("differs_from_the_original")}
    assert differing == {"png-gray-16", "tiff-gray-16", *(f"exif-{orientation}" for orientation in range(2, 9))}


@pytest.mark.parametrize(
    "case", RESIZE["sizes"], ids=lambda case: f"{case['short_side']}-{'x'.join(map(str, case['image_hw']))}"
)
def test_sizes_are_the_originals(case: Case) -> None:
    arguments = (tuple(case["image_hw"]), case["short_side"], case["long_side"])
    if case["resized_hw"] is None:  # the original fails
        with pytest.raises(ImageError, match="is too thin"):
            resized_hw(*arguments)
    else:
        assert list(resized_hw(*arguments)) == case["resized_hw"]


@pytest.mark.parametrize(
    "case", RESIZE["pixels"], ids=lambda case: f"{case['short_side']}-{'x'.join(map(str, case['image_hw']))}"
)
def test_drawn_pictures_have_the_originals_pixels_at_the_sizes_of_both_models(case: Case) -> None:
    picture = Image.fromarray(draw_picture(case["seed"], *case["image_hw"]))
    pixels = valid_pixels(prepare_image(picture, settings_of(case)))
    assert list(pixels.shape[1:]) == case["resized_hw"]
    assert sha256(np.ascontiguousarray(pixels.transpose(1, 2, 0))) == case["sha256"]
