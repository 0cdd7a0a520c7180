"""The padding that a set of buckets costs is told before anything is served, on the sizes of real pictures."""

import json
from pathlib import Path

import pytest
from PIL import Image

from gdino_build.padding import (
    add_buckets,
    format_padding,
    mean_padding,
    measure_padding,
    read_coco_sizes,
    read_dataset_sizes,
)
from gdino_build.profile import load_profile, profile_names
from gdino_core.errors import ConfigError
from gdino_core.image import prepare_image
from gdino_core.settings import PreprocessSettings

SETTINGS = PreprocessSettings(
    short_side=64, long_side=128, resolution_buckets=((64, 160), (160, 64), (32, 256), (256, 32))
)


def test_padding_is_the_share_of_the_frame_outside_the_prepared_picture() -> None:
    sizes = {(480, 640): 3, (640, 480): 1, (100, 1000): 2}
    expected, bucket_counts = 0.0, {}
    for (height, width), pictures in sizes.items():
        prepared = prepare_image(Image.new("RGB", (width, height)), SETTINGS)
        valid_h, valid_w = prepared.valid_hw
        frame = prepared.pixels.shape[1:]
        expected += pictures / 6 * (1 - valid_h * valid_w / (frame[0] * frame[1]))
        bucket_counts[frame] = bucket_counts.get(frame, 0) + pictures
    uses = measure_padding(sizes, SETTINGS)
    assert mean_padding(uses) == pytest.approx(expected)
    assert {use.bucket: round(use.pictures * 6) for use in uses if use.pictures} == bucket_counts
    assert f"{expected:.1%}" in format_padding(uses)


@pytest.mark.parametrize("name", profile_names())
def test_shipped_profiles_pad_at_most_fifteen_percent_on_coco(name: str) -> None:
    sizes = read_coco_sizes()
    assert sum(sizes.values()) == 5000
    assert mean_padding(measure_padding(sizes, load_profile(name).preprocess)) <= 0.15


def test_each_added_bucket_saves_most_of_all() -> None:
    sizes = {(64, 64): 10, (64, 96): 1}
    [one] = set(add_buckets(sizes, SETTINGS, 1).resolution_buckets) - set(SETTINGS.resolution_buckets)
    assert one == (64, 64)
    more = add_buckets(sizes, SETTINGS, 5)
    assert set(more.resolution_buckets) - set(SETTINGS.resolution_buckets) == {(64, 64), (64, 96)}
    assert mean_padding(measure_padding(sizes, more)) == 0


def test_sizes_of_a_data_set_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps({"images": [{"height": 4, "width": 6}, {"height": 4, "width": 6}]}))
    assert read_dataset_sizes(file) == {(4, 6): 2}
    for content in (
        "[]",
        "{",
        '{"images": []}',
        '{"images": [{"height": 3}]}',
        '{"images": [{"height": 0, "width": 1}]}',
    ):
        file.write_text(content)
        with pytest.raises(ConfigError, match=r"lists? no|does not list"):
            read_dataset_sizes(file)
    with pytest.raises(ConfigError, match="cannot read"):
        read_dataset_sizes(tmp_path / "missing.json")


def test_too_thin_pictures_are_left_out() -> None:
    uses = measure_padding({(64, 64): 1, (1, 10_000): 5}, SETTINGS)
    assert uses[0].pictures == 1
    with pytest.raises(ConfigError, match="too thin"):
        measure_padding({(1, 10_000): 5}, SETTINGS)
