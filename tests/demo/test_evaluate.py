"""Accuracy: perfect, empty and mistaken detections get the figures they deserve."""

import numpy as np
import pytest

from coco import draw_scene, native_hw
from evaluate import score
from gdino_build.accuracy.scoring import Accuracy
from gdino_core.detections import DetectionArrays
from scenes import LABELS, Scene, boxes_xyxy

SCENES = [draw_scene("held-out", index) for index in range(40)]


def detections(scene: Scene, *, shift: float = 0.0, label_offset: int = 0, count: int = 6) -> DetectionArrays:
    """The truth about a scene, moved by a share of each box's width, relabelled, or cut short."""
    boxes = boxes_xyxy(scene, *native_hw(scene))[:count]
    boxes = boxes + shift * (boxes[:, 2:3] - boxes[:, :1]) * np.array([1, 0, 1, 0], dtype=np.float32)
    indices = [(LABELS.index(label) + label_offset) % len(LABELS) for label in scene.labels[:count]]
    return DetectionArrays(
        boxes_xyxy=boxes,
        scores=np.linspace(0.9, 0.5, len(boxes), dtype=np.float32),
        labels=[LABELS[index] for index in indices],
        label_index=np.array(indices, dtype=np.int32),
    )


def test_perfect_detections_score_one() -> None:
    accuracy = score(SCENES, [detections(scene) for scene in SCENES])
    assert (accuracy.ap, accuracy.ap50, accuracy.ap75, accuracy.ar) == pytest.approx((1.0, 1.0, 1.0, 1.0))


def test_no_detections_score_nothing() -> None:
    accuracy = score(SCENES, [detections(scene, count=0) for scene in SCENES])
    assert accuracy == Accuracy(scenes=len(SCENES), ap=0.0, ap50=0.0, ap75=0.0, ar=0.0)


def test_right_boxes_with_wrong_labels_score_almost_nothing() -> None:
    assert score(SCENES, [detections(scene, label_offset=1) for scene in SCENES]).ap50 < 0.1


def test_boxes_that_are_a_little_off_cost_ap_but_not_ap50() -> None:
    accuracy = score(SCENES, [detections(scene, shift=0.2) for scene in SCENES])  # IoU 0.8 / 1.2
    assert accuracy.ap50 == pytest.approx(1.0)
    assert accuracy.ap == pytest.approx(0.4)  # right at 0.50, 0.55, 0.60 and 0.65 of ten thresholds
    assert accuracy.ap75 == pytest.approx(0.0)


def test_the_native_picture_has_the_scenes_aspect_ratio() -> None:
    for scene in SCENES:
        height, width = native_hw(scene)
        assert min(height, width) == 480
        assert width / height == pytest.approx(scene.aspect, rel=0.01)
