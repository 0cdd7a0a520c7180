"""Scenes: their boxes are exact, and they stay within the limits of the demo world."""

from dataclasses import replace

import numpy as np
import pytest

from scenes import (
    ACROSS_RANGE,
    ASPECT_RANGE,
    COLOUR_JITTER,
    COLOURS,
    LABELS,
    MAX_OBJECTS,
    SHAPES,
    Scene,
    boxes_xyxy,
    random_scene,
    render,
)


def some_scenes(count: int, aspect: float | None = None) -> list[Scene]:
    rng = np.random.default_rng(5)
    return [random_scene(rng, aspect) for _ in range(count)]


def box_iou(one: np.ndarray, other: np.ndarray) -> float:
    width, height = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = max(width, 0) * max(height, 0)
    return float(shared / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared))


@pytest.mark.parametrize("image_hw", [(160, 213), (480, 640), (37, 61)])
def test_boxes_are_as_tight_as_the_drawn_shapes_to_a_pixel(image_hw: tuple[int, int]) -> None:
    for scene in some_scenes(25, 4 / 3):
        empty = render(replace(scene, objects=()), *image_hw).astype(int)
        for thing in scene.objects:
            alone = replace(scene, objects=(thing,))
            rows, columns = np.nonzero(np.abs(render(alone, *image_hw) - empty).max(axis=2))
            drawn = np.array((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
            assert np.abs(drawn - boxes_xyxy(alone, *image_hw)[0]).max() <= 1.0


def test_a_circle_fills_the_share_of_its_box_that_geometry_says() -> None:
    circles = [thing for scene in some_scenes(60, 1.0) for thing in scene.objects if thing.shape == "circle"]
    scene = replace(some_scenes(1, 1.0)[0], objects=())
    empty = render(scene, 400, 400).astype(int)
    for circle in circles:
        drawn = np.abs(render(replace(scene, objects=(circle,)), 400, 400) - empty).max(axis=2) > 40
        assert drawn.sum() / (400 * circle.across) ** 2 == pytest.approx(np.pi / 4, rel=0.03)


def test_scenes_stay_within_the_limits_of_the_demo_world() -> None:
    counts = set()
    for scene in some_scenes(300):
        counts.add(len(scene.objects))
        assert ASPECT_RANGE[0] <= scene.aspect <= ASPECT_RANGE[1]
        for thing in scene.objects:
            assert ACROSS_RANGE[0] <= thing.across <= ACROSS_RANGE[1]
            assert np.abs(np.subtract(thing.rgb, COLOURS[thing.colour])).max() <= COLOUR_JITTER
    assert counts == set(range(1, MAX_OBJECTS + 1))


def test_every_object_lies_inside_the_picture_and_hardly_overlaps_another() -> None:
    for scene in some_scenes(200):
        boxes = boxes_xyxy(scene, 300, 300)
        assert boxes.min() >= 0
        assert boxes.max() <= 300
        for index, box in enumerate(boxes):
            assert all(box_iou(box, other) <= 0.15 for other in boxes[index + 1 :])


def test_every_label_occurs() -> None:
    assert len(LABELS) == len(set(LABELS)) == len(COLOURS) * len(SHAPES) == 24
    assert {label for scene in some_scenes(300) for label in scene.labels} == set(LABELS)


def test_the_same_seed_draws_the_same_picture() -> None:
    one, other = some_scenes(3), some_scenes(3)
    assert one == other
    assert all(np.array_equal(render(a, 90, 120), render(b, 90, 120)) for a, b in zip(one, other, strict=True))


def test_objects_stand_out_from_every_background() -> None:
    for scene in some_scenes(150):
        empty = render(replace(scene, objects=()), 120, 120).astype(int)
        for thing, box in zip(scene.objects, boxes_xyxy(scene, 120, 120).astype(int), strict=True):
            behind = empty[box[1] : box[3], box[0] : box[2]].mean(axis=(0, 1))
            assert np.abs(behind - thing.rgb).max() > 25


def test_boxes_scale_with_the_picture() -> None:
    for scene in some_scenes(20, 1.5):
        np.testing.assert_allclose(boxes_xyxy(scene, 400, 600), 4 * boxes_xyxy(scene, 100, 150), rtol=1e-5)
