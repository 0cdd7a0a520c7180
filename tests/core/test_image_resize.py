"""Pictures get the size and the pixels that the original gives them, and always fit a bucket.

tests/core/test_image_goldens.py compares with the original itself.
"""

import re

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from gdino_build.profile import load_profile, profile_names
from gdino_core.errors import ConfigError, ImageError
from gdino_core.image import choose_bucket, prepare_image, resized_hw
from gdino_core.settings import PreprocessSettings, longest_resized_side

SETTINGS = PreprocessSettings(
    short_side=800,
    long_side=1333,
    resolution_buckets=((800, 1344), (1344, 800), (1088, 800), (800, 1088), (64, 2688), (2688, 64)),
)
SMALL = PreprocessSettings(
    short_side=64, long_side=96, resolution_buckets=((64, 96), (96, 64), (64, 64), (64, 192), (192, 64))
)


def original_hw(image_hw: tuple[int, int], size: int, max_size: int) -> tuple[int, int]:
    """Follow datasets/transforms.py, get_size_with_aspect_ratio()."""
    h, w = image_hw
    shorter, longer = float(min(w, h)), float(max(w, h))
    if longer / shorter * size > max_size:
        size = round(max_size * shorter / longer)
    if (w <= h and w == size) or (h <= w and h == size):
        return h, w
    if w < h:
        return int(size * h / w), size
    return size, int(size * w / h)


def triangle_weights(length: int, resized: int) -> npt.NDArray[np.float64]:
    """Return [resized, length] weights of an antialiased bilinear filter, from its definition."""
    scale = length / resized
    support = max(scale, 1.0)
    centres = (np.arange(resized)[:, None] + 0.5) * scale
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(length)[None, :] + 0.5 - centres) / support)
    normalised: npt.NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return normalised


@pytest.mark.parametrize(
    ("image_hw", "expected"),
    [
        ((480, 640), (800, 1066)),
        ((640, 480), (1066, 800)),
        ((1080, 1920), (750, 1333)),
        ((4032, 3024), (1066, 800)),
        ((800, 1200), (800, 1200)),
        ((640, 640), (800, 800)),
        ((1, 1), (800, 800)),
        ((100, 710), (188, 1334)),  # the original oversteps 1333 too; 1344 holds it
    ],
)
def test_sizes_that_the_original_gives(image_hw: tuple[int, int], expected: tuple[int, int]) -> None:
    assert original_hw(image_hw, 800, 1333) == expected
    assert resized_hw(image_hw, 800, 1333) == expected


@given(st.integers(1, 6000), st.integers(1, 6000))
def test_sizes_equal_the_originals_wherever_the_original_gives_one(height: int, width: int) -> None:
    expected = original_hw((height, width), 800, 1333)
    if min(expected) >= 1:
        assert resized_hw((height, width), 800, 1333) == expected
    else:
        with pytest.raises(ImageError, match=f"the picture of {height}x{width} .* is too thin"):
            resized_hw((height, width), 800, 1333)


@pytest.mark.parametrize("name", profile_names())
def test_every_picture_that_the_original_resizes_has_a_bucket_in_the_shipped_profiles(name: str) -> None:
    settings = load_profile(name).preprocess
    short_side, long_side = settings.short_side, settings.long_side
    # All aspect ratios of small pictures, and for each short side those where rounding lengthens most.
    small = [(short, long) for long in range(1, 401) for short in range(1, long + 1)]
    extreme = [(2 * short - 1, 2 * long_side - less) for short in range(1, short_side + 1) for less in (-1, 0, 1, 2)]
    longest: dict[int, int] = {}
    for picture in small + extreme:
        if min(original_hw(picture, short_side, long_side)) == 0:
            continue
        for image_hw in (picture, picture[::-1]):
            size = resized_hw(image_hw, short_side, long_side)
            bucket = choose_bucket(size, settings.resolution_buckets)
            assert bucket[0] >= size[0]
            assert bucket[1] >= size[1]
            if max(size) < 7 * min(size):  # the buckets of thin pictures are for these alone
                assert min(bucket) >= short_side
            longest[min(size)] = max(longest.get(min(size), 0), max(size))
    assert set(longest) == set(range(1, short_side + 1))
    assert all(long <= longest_resized_side(short, long_side) for short, long in longest.items())
    # The bound is reached, but where a half rounds to the even neighbour: below it at 1.
    assert longest[2] == longest_resized_side(2, long_side)
    assert longest[1] == longest_resized_side(1, long_side) - 1


@given(st.integers(1, 2**13), st.integers(1, 2**13), st.integers(1, 200), st.integers(0, 200))
def test_every_picture_fits_the_buckets_that_settings_accept(
    height: int, width: int, short_side: int, extra: int
) -> None:
    long_side = short_side + extra
    # The least that settings accept: found by adding what they ask for.
    buckets = [(32, 32)]
    while True:
        try:
            settings = PreprocessSettings(short_side=short_side, long_side=long_side, resolution_buckets=tuple(buckets))
            break
        except ConfigError as error:
            remedy = re.search(r"add (\d+)x(\d+) to", error.fix)
            assert remedy
            buckets.append((int(remedy[1]), int(remedy[2])))
    assert len(buckets) <= 5  # usual and thin ones, each upright and lying
    assume(min(original_hw((height, width), short_side, long_side)) >= 1)
    size = resized_hw((height, width), short_side, long_side)
    bucket = choose_bucket(size, settings.resolution_buckets)
    assert size[0] <= bucket[0]
    assert size[1] <= bucket[1]


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((800, 1066), (800, 1088)),
        ((800, 1089), (800, 1344)),
        ((1066, 800), (1088, 800)),
        ((1089, 800), (1344, 800)),
        ((800, 800), (1088, 800)),  # two hold it with one area: the first listed
        ((64, 1330), (64, 2688)),
        ((65, 1333), (800, 1344)),
    ],
)
def test_the_bucket_of_least_area_is_chosen(size: tuple[int, int], bucket: tuple[int, int]) -> None:
    assert choose_bucket(size, SETTINGS.resolution_buckets) == bucket


def test_a_size_that_no_bucket_holds_is_named_with_the_buckets() -> None:
    with pytest.raises(ConfigError, match=r"holds 96x97 .*; there are 64x96, 96x64, 64x64, 64x192, 192x64"):
        choose_bucket((96, 97), SMALL.resolution_buckets)


def test_the_picture_is_at_the_top_left_and_the_rest_is_zero() -> None:
    prepared = prepare_image(Image.new("RGB", (128, 100), (10, 20, 30)), SMALL)
    assert prepared.valid_hw.tolist() == [64, 81]
    assert prepared.image_hw.tolist() == [100, 128]
    assert prepared.pixels.shape == (3, 64, 96)
    assert prepared.pixels.dtype == np.uint8
    assert prepared.pixels.flags.c_contiguous
    assert prepared.valid_hw.dtype == prepared.image_hw.dtype == np.int32
    assert (prepared.pixels[:, :, :81] == np.array([10, 20, 30])[:, None, None]).all()
    assert not prepared.pixels[:, :, 81:].any()


@pytest.mark.parametrize("image_hw", [(200, 240), (240, 200), (30, 40), (64, 64), (7, 300)])
def test_pixels_are_those_of_an_antialiased_bilinear_filter(image_hw: tuple[int, int]) -> None:
    source = np.random.default_rng(3).integers(0, 256, (*image_hw, 3), dtype=np.uint8)
    prepared = prepare_image(Image.fromarray(source), SMALL)
    height, width = prepared.valid_hw.tolist()
    expected = np.einsum(
        "yh,hwc,xw->cyx",
        triangle_weights(image_hw[0], height),
        source.astype(np.float64),
        triangle_weights(image_hw[1], width),
    )
    # Pillow rounds to uint8 after each of its two passes.
    assert np.abs(prepared.pixels[:, :height, :width] - expected).max() <= 1.01
