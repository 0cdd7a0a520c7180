"""demo/coco.py: the data set is deterministic, whole, and of pictures that training never sees."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from batches import EVALUATION_STREAM, TRAINING_STREAM, stream
from coco import draw_scene, native_hw, scenes_to_coco, write_dataset
from gdino_build.accuracy.dataset import load_coco
from scenes import LABELS, boxes_xyxy, random_scene, render


def test_pictures_are_the_scenes_to_the_last_pixel_and_boxes_to_the_last_bit(scenes_folder: Path) -> None:
    dataset = load_coco(scenes_folder / "annotations.json", scenes_folder)
    assert dataset.labels == LABELS
    for index, picture in enumerate(dataset.pictures):
        scene = draw_scene("held-out", index)
        with Image.open(picture.path) as image:
            np.testing.assert_array_equal(np.asarray(image), render(scene, *native_hw(scene)))
        boxes = [one["bbox"] for one in dataset.truth["annotations"] if one["image_id"] == index]
        x0, y0, width, height = np.array(boxes).T
        np.testing.assert_array_equal(
            np.stack((x0, y0, x0 + width, y0 + height), axis=1).astype(np.float32),
            boxes_xyxy(scene, *native_hw(scene)),
        )


def test_held_out_and_training_scenes_come_from_streams_that_never_meet() -> None:
    for index in range(3):
        assert draw_scene("held-out", index) == random_scene(stream(EVALUATION_STREAM, 0, index))
        assert draw_scene("training", index) == random_scene(stream(TRAINING_STREAM, 0, index))
        assert draw_scene("held-out", index) != draw_scene("training", index)


def test_the_annotations_are_the_same_on_every_call() -> None:
    first, second = (scenes_to_coco([draw_scene("held-out", index) for index in range(3)]) for _ in range(2))
    assert first == second


def test_what_is_whole_is_left_alone(tmp_path: Path) -> None:
    path = write_dataset("training", 2, tmp_path)
    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert sorted(before) == ["000000.png", "000001.png", "annotations.json"]
    assert write_dataset("training", 2, tmp_path) == path
    assert {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("damage", ["missing picture", "torn picture", "torn annotations", "other scenes"])
def test_what_is_not_whole_is_written_again(tmp_path: Path, damage: str) -> None:
    path = write_dataset("training", 2, tmp_path)
    whole = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    picture = tmp_path / "000001.png"
    if damage == "missing picture":
        picture.unlink()
    elif damage == "torn picture":
        picture.write_bytes(picture.read_bytes()[:-100])
    elif damage == "torn annotations":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        write_dataset("held-out", 2, tmp_path)
        assert json.loads(path.read_text(encoding="utf-8")) != json.loads(whole["annotations.json"])
    write_dataset("training", 2, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == whole
