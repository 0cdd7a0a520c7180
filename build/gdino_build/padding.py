"""How much of the frames is padding, for the picture sizes of a data set, and which buckets would leave less."""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from gdino_core.errors import ConfigError, ImageError
from gdino_core.image import choose_bucket, resized_hw
from gdino_core.settings import PreprocessSettings, round_up_to_stride

Size = tuple[int, int]  # height, width
SizeCounts = Mapping[Size, int]  # how many pictures have each size


@dataclass(frozen=True, kw_only=True)
class BucketUse:
    """What one bucket is given.

    Attributes:
        bucket: its height and width.
        pictures: share of all, in [0, 1].
        padding: mean share of its area that is no picture, in [0, 1].
    """

    bucket: Size
    pictures: float
    padding: float


def read_coco_sizes() -> SizeCounts:
    """Sizes of 5,000 pictures of COCO, those of the split minival2014 ("5k").

    Source: the data set's own metadata, as listed in ultralytics/yolov3, data/5k.shapes, commit 4156e83.
    """
    with (resources.files("gdino_build") / "coco_picture_sizes.csv").open(encoding="utf-8") as file:
        return {(int(row["height"]), int(row["width"])): int(row["pictures"]) for row in csv.DictReader(file)}


def read_dataset_sizes(annotations: Path) -> SizeCounts:
    """Sizes of the pictures that an annotation file in COCO's format lists; the pictures need not be there.

    Raises:
        ConfigError: it cannot be read, or lists no sizes.
    """
    try:
        images = json.loads(annotations.read_bytes())["images"]
        sizes = Counter((int(image["height"]), int(image["width"])) for image in images)
    except OSError as error:
        raise ConfigError(
            f"cannot read the annotation file {annotations}: {error.strerror}", fix="name a file in COCO's format"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{annotations} does not list its images with height and width: {error!r}",
            fix="see https://cocodataset.org/#format-data",
        ) from error
    if not sizes or min(min(size) for size in sizes) < 1:
        raise ConfigError(f"{annotations} lists no images, or one without pixels", fix="name another data set")
    return sizes


def measure_padding(sizes: SizeCounts, settings: PreprocessSettings) -> list[BucketUse]:
    """What each bucket is given, the most used first; pictures that the model refuses as too thin are left out."""
    resized = _resized(sizes, settings)
    total = sum(resized.values())
    given: dict[Size, Counter[Size]] = {bucket: Counter() for bucket in settings.resolution_buckets}
    for size, count in resized.items():
        given[choose_bucket(size, settings.resolution_buckets)][size] += count
    uses = [
        BucketUse(
            bucket=bucket,
            pictures=counts.total() / total,
            padding=sum(count * _padding(size, bucket) for size, count in counts.items()) / max(counts.total(), 1),
        )
        for bucket, counts in given.items()
    ]
    return sorted(uses, key=lambda use: use.pictures, reverse=True)


def mean_padding(uses: Sequence[BucketUse]) -> float:
    """Mean share of a picture's frame that is padding, in [0, 1]."""
    return sum(use.pictures * use.padding for use in uses)


def add_buckets(sizes: SizeCounts, settings: PreprocessSettings, count: int) -> PreprocessSettings:
    """Add so many buckets, each the one that saves most padding; fewer where none is left that saves any."""
    candidates = sorted(
        {(round_up_to_stride(height), round_up_to_stride(width)) for height, width in _resized(sizes, settings)}
    )
    for _ in range(count):
        best = min(
            (replace(settings, resolution_buckets=(*settings.resolution_buckets, one)) for one in candidates),
            key=lambda tried: mean_padding(measure_padding(sizes, tried)),
        )
        if mean_padding(measure_padding(sizes, best)) >= mean_padding(measure_padding(sizes, settings)):
            break
        settings = best
    return settings


def format_padding(uses: Sequence[BucketUse]) -> str:
    """A table, and the mean."""
    lines = [f"{'bucket (height x width)':<26}{'pictures':>10}{'padding':>10}"]
    lines += [f"{use.bucket[0]:>9} x {use.bucket[1]:<14}{use.pictures:>10.1%}{use.padding:>10.1%}" for use in uses]
    return "\n".join([*lines, f"on average {mean_padding(uses):.1%} of a frame is padding"])


def _resized(sizes: SizeCounts, settings: PreprocessSettings) -> Counter[Size]:
    resized: Counter[Size] = Counter()
    for size, count in sizes.items():
        try:
            resized[resized_hw(size, settings.short_side, settings.long_side)] += count
        except ImageError:
            continue
    if not resized:
        raise ConfigError("every picture is too thin for the model", fix="name another data set")
    return resized


def _padding(size: Size, bucket: Size) -> float:
    return 1 - size[0] * size[1] / (bucket[0] * bucket[1])
