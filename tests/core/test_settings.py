"""Settings survive the trip through config.pbtxt, and wrong ones are refused with what to change."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdino_core.errors import ConfigError
from gdino_core.settings import PreprocessSettings

THIN = ((64, 2688), (2688, 64))
SETTINGS = PreprocessSettings(
    short_side=800, long_side=1333, resolution_buckets=((800, 1344), (1344, 800), *THIN), text_buckets=(16, 256)
)


def test_settings_come_back_equal_from_config_pbtxt() -> None:
    parameters = SETTINGS.to_parameters()
    assert parameters["resolution_buckets"] == "800x1344,1344x800,64x2688,2688x64"
    assert parameters["text_buckets"] == "16,256"
    assert all(isinstance(value, str) for value in parameters.values())
    assert PreprocessSettings.from_parameters(parameters) == SETTINGS


@given(
    short_side=st.integers(1, 2000),
    extra=st.integers(0, 2000),
    text_buckets=st.sets(st.integers(3, 256), min_size=1),
    max_image_bytes=st.integers(1, 2**40 - 1),
)
def test_any_valid_settings_come_back_equal(
    short_side: int, extra: int, text_buckets: set[int], max_image_bytes: int
) -> None:
    side = -(-2 * (short_side + extra) // 32) * 32  # what the thinnest picture needs
    settings = PreprocessSettings(
        short_side=short_side,
        long_side=short_side + extra,
        resolution_buckets=((side, side),),
        text_buckets=tuple(sorted(text_buckets)),
        max_image_bytes=max_image_bytes,
    )
    assert PreprocessSettings.from_parameters(settings.to_parameters()) == settings


def test_parameters_of_triton_are_left_alone() -> None:
    parameters = SETTINGS.to_parameters() | {"contract_version": "1", "FORCE_CPU_ONLY_INPUT_TENSORS": "no"}
    assert PreprocessSettings.from_parameters(parameters) == SETTINGS


@pytest.mark.parametrize("name", sorted(SETTINGS.to_parameters()))
def test_a_missing_parameter_is_named(name: str) -> None:
    parameters = SETTINGS.to_parameters()
    del parameters[name]
    with pytest.raises(ConfigError, match=f"lacks the parameter {name}\n  fix: "):
        PreprocessSettings.from_parameters(parameters)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("short_side", ""),
        ("short_side", "800.0"),
        ("short_side", "-800"),
        ("short_side", " 800"),
        ("short_side", "٨٠٠"),
        ("short_side", "9" * 5000),
        ("resolution_buckets", ""),
        ("resolution_buckets", "800x1344,"),
        ("resolution_buckets", "800X1344"),
        ("resolution_buckets", "800"),
        ("text_buckets", ""),
        ("text_buckets", "16;32"),
        ("text_buckets", "16,,32"),
    ],
)
def test_a_parameter_that_cannot_be_read_is_named_with_its_text(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"parameter {name} is ") as caught:
        PreprocessSettings.from_parameters(SETTINGS.to_parameters() | {name: text})
    assert text in str(caught.value)
    assert "such as" in caught.value.fix


@pytest.mark.parametrize("name", ["short_side", "long_side", "max_prompts", "max_image_bytes", "max_image_pixels"])
def test_zero_is_no_size_and_no_limit(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is 0"):
        PreprocessSettings.from_parameters(SETTINGS.to_parameters() | {name: "0"})


def test_a_short_side_above_the_long_side_is_refused() -> None:
    with pytest.raises(ConfigError, match="short_side 1400 is more than long_side 1333"):
        replace(SETTINGS, short_side=1400)


@pytest.mark.parametrize("bucket", [(800, 1333), (0, 32), (-32, 32), (33, 64)])
def test_a_bucket_off_the_stride_is_refused(bucket: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=f"{bucket[0]}x{bucket[1]} is not made of multiples of 32"):
        replace(SETTINGS, resolution_buckets=(*SETTINGS.resolution_buckets, bucket))


@pytest.mark.parametrize(
    ("buckets", "size", "remedy"),
    [
        (((800, 1344), *THIN), "1333x800", "1344x800"),
        (((1344, 800), *THIN), "800x1333", "800x1344"),
        (((800, 1312), (1344, 800), *THIN), "800x1333", "800x1344"),
        (((768, 1344), (1344, 800), *THIN), "800x1333", "800x1344"),
        (((800, 1344), (1344, 800)), "56x1345", "64x2688"),
        (((800, 1344), (1344, 800), THIN[0]), "1345x56", "2688x64"),
        (((800, 1344), (1344, 800), (64, 2656), THIN[1]), "1x2666", "32x2688"),
        (((800, 1344), (1344, 800), (32, 2688), THIN[1]), "56x1345", "64x2688"),
    ],
)
def test_buckets_that_some_picture_would_not_fit_are_refused_with_the_bucket_to_add(
    buckets: tuple[tuple[int, int], ...], size: str, remedy: str
) -> None:
    with pytest.raises(ConfigError, match=f"no resolution bucket holds .* {size} .*\n  fix: add {remedy} to"):
        replace(SETTINGS, resolution_buckets=buckets)


def test_one_square_bucket_is_enough() -> None:
    assert replace(SETTINGS, resolution_buckets=((2688, 2688),)).resolution_buckets == ((2688, 2688),)


@pytest.mark.parametrize(
    ("buckets", "message"),
    [
        ((), "text_buckets is empty"),
        ((32, 16), "do not rise"),
        ((16, 16), "do not rise"),
        ((2, 16), "leave the range 3 to 256"),
        ((16, 257), "leave the range 3 to 256"),
    ],
)
def test_text_buckets_the_model_cannot_use_are_refused(buckets: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SETTINGS, text_buckets=buckets)


def test_no_resolution_bucket_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="resolution_buckets is empty"):
        replace(SETTINGS, resolution_buckets=())
