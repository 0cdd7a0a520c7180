"""Drawn detections: visible, inside the picture, coloured by label."""

from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from gdino_client import Detection, Detections, ImageError, draw_detections
from gdino_client.draw import PALETTE, colour_of

GRAY = (128, 128, 128)


def make_detections(
    size: tuple[int, int], boxes: list[tuple[float, ...]], labels: list[str], *, caption: bool = False
) -> Detections:
    prompt = tuple(dict.fromkeys(labels))
    index = [-1 if caption else prompt.index(label) for label in labels]
    return Detections(
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.linspace(0.9, 0.4, len(labels), dtype=np.float32),
        labels=tuple(labels),
        label_index=np.array(index, np.int32),
        image_hw=(size[1], size[0]),
        prompt=prompt,
    )


def changed_pixels(drawn: Image.Image) -> np.ndarray:
    changed: np.ndarray = (np.asarray(drawn) != GRAY).any(axis=2)
    return changed


def test_a_box_is_drawn_on_its_edge_and_the_tag_above_it() -> None:
    size = (300, 200)
    drawn = draw_detections(Image.new("RGB", size, GRAY), make_detections(size, [(50, 80, 150, 180)], ["cat"]))
    assert {drawn.getpixel(xy) for xy in ((50, 150), (149, 150), (100, 179))} == {PALETTE[0]}
    assert drawn.getpixel((100, 130)) == GRAY
    assert drawn.getpixel((51, 75)) == PALETTE[0]  # the tag's ground, above the box


def test_nothing_found_leaves_the_picture_as_it_is() -> None:
    drawn = draw_detections(Image.new("RGB", (30, 20), GRAY), make_detections((30, 20), [], []))
    assert not changed_pixels(drawn).any()


def test_the_picture_that_was_given_is_not_drawn_on() -> None:
    picture = Image.new("RGB", (100, 80), GRAY)
    draw_detections(picture, make_detections((100, 80), [(5, 5, 50, 50)], ["cat"]))
    assert not changed_pixels(picture).any()


@pytest.mark.parametrize(
    "box",
    [(0, 0, 300, 40), (280, 0, 300, 200), (-90, 150, 20, 400), (298, 198, 300, 200), (400, 300, 500, 400)],
)
def test_tags_at_the_edges_are_whole(box: tuple[float, ...]) -> None:
    size = (300, 200)
    inside = draw_detections(Image.new("RGB", size, GRAY), make_detections(size, [(100, 100, 101, 101)], ["a cat"]))
    at_edge = draw_detections(Image.new("RGB", size, GRAY), make_detections(size, [box], ["a cat"]))
    letters = [(np.asarray(drawn)[:, :, 1] > 190).sum() for drawn in (inside, at_edge)]
    assert letters[0] == letters[1] > 0  # as many pixels of the tag's white letters


def test_a_label_longer_than_the_picture_is_shortened_until_its_tag_fits() -> None:
    size = (120, 90)
    found = make_detections(size, [(10, 60, 60, 80)], ["x" * 200])
    ground = (np.asarray(draw_detections(Image.new("RGB", size, GRAY), found)) == PALETTE[0]).all(axis=2)[:58]
    columns, rows = np.flatnonzero(ground.any(axis=0)), np.flatnonzero(ground.any(axis=1))
    assert 80 < len(columns) <= 120
    # No letter touches the left or the right edge of the tag.
    assert ground[rows[0] : rows[-1] + 1, [columns[0], columns[-1]]].all()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (12, 12), (40, 10), (10, 40), (3000, 8)])
def test_pictures_too_small_for_a_tag_are_drawn_without_failing(size: tuple[int, int]) -> None:
    whole = (0, 0, size[0], size[1])
    assert draw_detections(Image.new("RGB", size), make_detections(size, [whole], ["red circle"])).size == size


def test_a_box_without_area_is_drawn_without_failing() -> None:
    size = (100, 80)
    drawn = draw_detections(Image.new("RGB", size, GRAY), make_detections(size, [(50, 40, 50, 40)], ["cat"]))
    assert changed_pixels(drawn).any()


def test_tags_of_boxes_at_the_same_place_do_not_hide_each_other() -> None:
    size = (400, 300)
    boxes: list[tuple[float, ...]] = [(100, 100, 300, 250)] * 3
    drawn = np.asarray(
        draw_detections(Image.new("RGB", size, GRAY), make_detections(size, boxes, ["cat", "dog", "cow"]))
    )
    grounds = [(drawn == colour).all(axis=2).sum() for colour in PALETTE[:3]]
    assert min(grounds) > 400


def test_the_24_labels_of_the_demo_have_24_colours() -> None:
    labels = [f"label {index}" for index in range(24)]
    box = (0.0, 0.0, 1.0, 1.0)
    colours = [
        colour_of(Detection(label=label, label_index=index, score=1, box_xyxy=box), labels)
        for index, label in enumerate(labels)
    ]
    for first, second in combinations(colours, 2):
        assert sum(abs(a - b) for a, b in zip(first, second, strict=True)) > 40, (first, second)


def test_a_captions_phrase_has_the_colour_of_its_place_in_the_caption_however_written() -> None:
    box = (0.0, 0.0, 1.0, 1.0)
    asked = ("Cat", "Remote Control")
    phrase = Detection(label="remote control", label_index=-1, score=1, box_xyxy=box)
    assert colour_of(phrase, asked) == PALETTE[1]
    part = Detection(label="control", label_index=-1, score=1, box_xyxy=box)
    assert colour_of(part, asked) == colour_of(part, asked)


def test_detections_of_another_picture_are_not_drawn() -> None:
    with pytest.raises(ImageError, match=r"the picture has 30x20 pixels, the detections are for 20x30\n  fix: draw"):
        draw_detections(Image.new("RGB", (30, 20)), make_detections((20, 30), [], []))
