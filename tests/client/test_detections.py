"""Detections as Python objects and as JSON."""

import json

import numpy as np
import pytest

from gdino_client import Detection, Detections


@pytest.fixture
def detections() -> Detections:
    return Detections(
        boxes_xyxy=np.array([[1, 2.5, 3, 4], [0.1, 0, 639.9, 480]], dtype=np.float32),
        scores=np.array([0.9, 1 / 3], dtype=np.float32),
        labels=("blue star", "red circle"),
        label_index=np.array([1, 0], dtype=np.int32),
        image_hw=(480, 640),
        prompt=("red circle", "blue star"),
    )


def test_iterating_gives_one_detection_after_the_other(detections: Detections) -> None:
    assert len(detections) == 2
    first, second = detections
    assert first == Detection(label="blue star", label_index=1, score=0.9, box_xyxy=(1.0, 2.5, 3.0, 4.0))
    assert second.box_xyxy == (0.1, 0.0, 639.9, 480.0)


def test_json_is_one_object_of_the_images_of_detections_json(detections: Detections) -> None:
    assert json.loads(json.dumps(detections.to_dict(file="a/b.jpg"))) == {
        "file": "a/b.jpg",
        "width": 640,
        "height": 480,
        "prompt": ["red circle", "blue star"],
        "detections": [
            {"label": "blue star", "label_index": 1, "score": 0.9, "box_xyxy": [1.0, 2.5, 3.0, 4.0]},
            {"label": "red circle", "label_index": 0, "score": 0.33333334, "box_xyxy": [0.1, 0, 639.9, 480]},
        ],
    }


def test_numbers_in_json_are_short_and_lose_nothing(detections: Detections) -> None:
    values = np.random.default_rng(0).uniform(0, 2000, (500, 4)).astype(np.float32)
    many = Detections(
        boxes_xyxy=values,
        scores=values[:, 0],
        labels=("",) * 500,
        label_index=np.zeros(500, np.int32),
        image_hw=(1, 1),
        prompt=(),
    )
    read = json.loads(json.dumps(many.to_dict(file="")))["detections"]
    assert np.array_equal(np.array([item["box_xyxy"] for item in read], np.float32), values)
    assert np.array_equal(np.array([item["score"] for item in read], np.float32), values[:, 0])
    assert max(len(str(item["score"])) for item in read) <= 11
