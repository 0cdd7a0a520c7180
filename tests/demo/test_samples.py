"""Sample pictures: the files in the repository are what their annotations say."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from samples import EXIF_ORIENTATION_TAG, SAMPLES, make_samples
from scenes import COLOURS, LABELS

FOLDER = Path(__file__).resolve().parents[2] / "demo" / "samples"


@pytest.fixture(scope="module")
def dataset() -> dict[str, Any]:
    result: dict[str, Any] = json.loads((FOLDER / "annotations.json").read_text(encoding="utf-8"))
    return result


def upright(image: dict[str, Any]) -> Image.Image:
    with Image.open(FOLDER / image["file_name"]) as stored:
        return ImageOps.exif_transpose(stored).convert("RGB")


def test_annotations_in_the_repository_are_those_the_script_makes(dataset: dict[str, Any], tmp_path: Path) -> None:
    assert make_samples(tmp_path) == dataset


def test_sizes_are_those_of_the_upright_pictures(dataset: dict[str, Any]) -> None:
    for image in dataset["images"]:
        assert upright(image).size == (image["width"], image["height"])


def test_annotated_boxes_are_filled_with_the_colour_of_their_label(dataset: dict[str, Any]) -> None:
    images = {image["id"]: image for image in dataset["images"]}
    names = {category["id"]: category["name"] for category in dataset["categories"]}
    for annotation in dataset["annotations"]:
        pixels = np.asarray(upright(images[annotation["image_id"]])).astype(int)
        x, y, width, height = annotation["bbox"]
        middle = pixels[round(y + height * 0.45) : round(y + height * 0.55)]
        middle = middle[:, round(x + width * 0.45) : round(x + width * 0.55)].mean(axis=(0, 1))
        colour = min(COLOURS, key=lambda name: float(np.abs(middle - COLOURS[name]).sum()))
        assert colour == names[annotation["category_id"]].split()[0]


def test_only_labels_that_are_asked_for_are_annotated(dataset: dict[str, Any]) -> None:
    names = {category["id"]: category["name"] for category in dataset["categories"]}
    for image in dataset["images"]:
        found = {names[each["category_id"]] for each in dataset["annotations"] if each["image_id"] == image["id"]}
        assert found <= set(image["prompt"]) <= set(LABELS)
        assert set(image["prompt"]) - found, "every prompt asks for something that is not there"


def test_one_sample_has_none_of_its_asked_labels(dataset: dict[str, Any]) -> None:
    annotated = {annotation["image_id"] for annotation in dataset["annotations"]}
    assert len([image for image in dataset["images"] if image["id"] not in annotated]) == 1


def test_samples_cover_the_formats_shapes_and_orientations() -> None:
    with ExitStack() as stack:
        opened = {sample.file_name: stack.enter_context(Image.open(FOLDER / sample.file_name)) for sample in SAMPLES}
        assert len(opened) == 8
        assert {picture.format for picture in opened.values()} == {"JPEG", "PNG", "WEBP"}
        assert len({sample.image_hw[0] / sample.image_hw[1] for sample in SAMPLES}) >= 6
        turned = [name for name, picture in opened.items() if picture.getexif().get(EXIF_ORIENTATION_TAG) == 6]
        assert turned == ["5-exif-rotated.jpg"]
