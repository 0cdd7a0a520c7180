"""Read a data set in COCO's format: pictures, the labels to ask for, and the boxes to find."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gdino_core.errors import ConfigError, ImageError

_EXAMPLE = "see https://cocodataset.org/#format-data, or demo/samples/annotations.json"


@dataclass(frozen=True, kw_only=True)
class CocoPicture:
    """One picture.

    Attributes:
        image_id: as the annotation file has it.
        path: of its file.
        image_hw: its height and width in pixels, which the boxes refer to.
    """

    image_id: int
    path: Path
    image_hw: tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoDataset:
    """A data set, or the first pictures of one.

    Attributes:
        file: the annotation file.
        sha256: of its bytes.
        pictures: in the order of the file.
        category_ids: in the order of the file; need not start at 0 nor be dense.
        labels: the name of each category; no two are the same to the model.
        truth: `images`, `annotations` and `categories` as COCO has them, of these pictures alone. Annotations are
            numbered from 1: pycocotools takes the one with the id 0 for none, and loses those that share an id.
    """

    file: Path
    sha256: str
    pictures: tuple[CocoPicture, ...]
    category_ids: tuple[int, ...]
    labels: tuple[str, ...]
    truth: Mapping[str, Any]


def load_coco(file: Path, folder: Path, limit: int | None = None) -> CocoDataset:
    """Read and check an annotation file.

    Args:
        file: in COCO's format for detection. Crowds (`iscrowd`) and pictures without annotations are allowed.
        folder: that the pictures' `file_name`s start from.
        limit: take only the first so many pictures.

    Raises:
        ConfigError: it is not COCO's format, or two categories would be the same to the model.
        ImageError: a picture is missing.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read the annotation file {file}: {error.strerror}",
            fix="name a COCO annotation file; python demo/coco.py writes the demo's",
        ) from error
    try:
        dataset = json.loads(content)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both
        raise ConfigError(f"{file} is not JSON: {error}", fix=_EXAMPLE) from error
    images, annotations, categories = (
        _entries(file, dataset, part) for part in ("images", "annotations", "categories")
    )
    _check(file, "images", images, {"id": _is_whole, "file_name": _is_text, "height": _is_size, "width": _is_size})
    _check(file, "categories", categories, {"id": _is_whole, "name": _is_text})
    _check(file, "annotations", annotations, {"image_id": _is_whole, "category_id": _is_whole, "bbox": _is_box})
    for part, entries in (("images", images), ("categories", categories)):
        _check_distinct(file, part, entries)
    _check_references(file, annotations, images, categories)
    _check_names(file, categories)
    if limit is not None and limit < 1:
        raise ConfigError(f"the limit is {limit} pictures", fix="give 1 or more, or no limit")
    images = images[:limit]
    kept = {image["id"] for image in images}
    boxes = [_annotation(one) for one in annotations if one["image_id"] in kept]
    if not any(not box["iscrowd"] for box in boxes):
        raise ConfigError(
            f"{file} annotates nothing in its first {len(images)} pictures", fix="raise the limit, or annotate objects"
        )
    return CocoDataset(
        file=file,
        sha256=hashlib.sha256(content).hexdigest(),
        pictures=_pictures(file, folder, images),
        category_ids=tuple(category["id"] for category in categories),
        labels=tuple(category["name"] for category in categories),
        truth={
            "info": {},
            "images": images,
            "annotations": [box | {"id": number} for number, box in enumerate(boxes, start=1)],
            "categories": categories,
        },
    )


def _annotation(one: Mapping[str, Any]) -> dict[str, Any]:
    """What scoring needs of an annotation; area and iscrowd have their usual values where they are missing."""
    _, _, width, height = one["bbox"]
    return {
        "image_id": one["image_id"],
        "category_id": one["category_id"],
        "bbox": one["bbox"],
        "area": one.get("area", width * height),
        "iscrowd": int(one.get("iscrowd", 0)),
    }


def _pictures(file: Path, folder: Path, images: Sequence[Mapping[str, Any]]) -> tuple[CocoPicture, ...]:
    pictures = tuple(
        CocoPicture(image_id=image["id"], path=folder / image["file_name"], image_hw=(image["height"], image["width"]))
        for image in images
    )
    missing = [picture.path for picture in pictures if not picture.path.is_file()]
    if missing:
        raise ImageError(
            f"{len(missing)} of the {len(pictures)} pictures of {file} are not in {folder}; "
            f"the first is {missing[0].relative_to(folder)}",
            fix="name the folder that the file_name of each picture starts from",
        )
    return pictures


def _entries(file: Path, dataset: Any, part: str) -> list[dict[str, Any]]:
    entries = dataset.get(part) if isinstance(dataset, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{file} has no list of {part}, so it is not in COCO's format", fix=_EXAMPLE)
    if not entries:
        raise ConfigError(f"the list of {part} in {file} is empty", fix="name a data set with objects to find")
    return entries


def _check(
    file: Path, part: str, entries: Sequence[Mapping[str, Any]], rules: Mapping[str, Callable[[Any], bool]]
) -> None:
    for place, entry in enumerate(entries):
        for key, is_valid in rules.items():
            if not is_valid(entry.get(key)):
                raise ConfigError(
                    f"{part}[{place}] of {file} has {key} {entry.get(key)!r}, which is not COCO's format", fix=_EXAMPLE
                )


def _check_distinct(file: Path, part: str, entries: Sequence[Mapping[str, Any]]) -> None:
    [(number, count)] = Counter(entry["id"] for entry in entries).most_common(1)
    if count > 1:
        raise ConfigError(f"{count} {part} of {file} have the id {number}", fix="give each an id of its own")


def _check_references(
    file: Path,
    annotations: Sequence[Mapping[str, Any]],
    images: Sequence[Mapping[str, Any]],
    categories: Sequence[Mapping[str, Any]],
) -> None:
    for key, part, entries in (("image_id", "images", images), ("category_id", "categories", categories)):
        known = {entry["id"] for entry in entries}
        for place, annotation in enumerate(annotations):
            if annotation[key] not in known:
                raise ConfigError(
                    f"annotations[{place}] of {file} has {key} {annotation[key]}, which none of the {part} has",
                    fix=f"remove the annotation, or add to {part} what it is of",
                )


def _check_names(file: Path, categories: Sequence[Mapping[str, Any]]) -> None:
    seen: dict[str, Any] = {}
    for category in categories:
        asked = " ".join(category["name"].lower().split())  # as the model reads it
        if asked in seen:
            raise ConfigError(
                f"categories {seen[asked]} and {category['id']} of {file} are both named {asked!r}: "
                "the model, which is asked by name, cannot tell them apart",
                fix="merge them, or give one another name",
            )
        seen[asked] = category["id"]


def _is_whole(value: object) -> bool:
    return type(value) is int


def _is_size(value: object) -> bool:
    return type(value) is int and value > 0


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_box(value: object) -> bool:
    """X, y, width and height; a width of NaN is not above 0 either."""
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(type(side) in (int, float) for side in value)
        and all(abs(side) < float("inf") for side in value)
        and value[2] >= 0
        and value[3] >= 0
    )
