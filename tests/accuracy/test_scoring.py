"""The scorer: hand-made cases, and pycocotools itself on the same files."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gdino_build.accuracy.answers import Answer, Found
from gdino_build.accuracy.dataset import CocoDataset, load_coco
from gdino_build.accuracy.record import points
from gdino_build.accuracy.scoring import Accuracy, answer_to_coco, score
from tests.accuracy.datasets import write_odd


@pytest.fixture
def odd(tmp_path: Path) -> CocoDataset:
    return load_coco(write_odd(tmp_path), tmp_path)


def answer(image_id: int, *found: tuple[int, float, tuple[float, float, float, float]]) -> Answer:
    labels, scores, boxes = zip(*found, strict=True) if found else ((), (), ())
    return Answer(
        image_id=image_id,
        picture_sha256="",
        found=Found(
            boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
            scores=np.array(scores, np.float32),
            label_index=np.array(labels, np.int32),
            image_hw=(80, 100),
        ),
    )


BEAR, CIRCLE = 0, 1  # places among the labels
PERFECT = (
    answer(901, (BEAR, 0.9, (10, 10, 50, 50)), (CIRCLE, 0.8, (60, 10, 90, 40))),
    answer(7, (CIRCLE, 0.7, (0, 0, 50, 50))),
    answer(44),
)


def results(dataset: CocoDataset, *answers: Answer) -> list[dict[str, object]]:
    return [result for one in answers for result in answer_to_coco(one, dataset.category_ids)]


def test_perfect_answers_score_a_hundred_points_with_odd_ids(odd: CocoDataset) -> None:
    accuracy = score(odd.truth, results(odd, *PERFECT))
    assert points(accuracy) == {"ap": 100.0, "ap50": 100.0, "ap75": 100.0, "ar": 100.0}
    assert accuracy.scenes == 3


def test_what_is_found_in_a_crowd_costs_nothing_and_elsewhere_it_does(odd: CocoDataset) -> None:
    in_crowd = answer(7, (BEAR, 0.99, (60, 10, 80, 60)), (CIRCLE, 0.7, (0, 0, 50, 50)))
    assert score(odd.truth, results(odd, PERFECT[0], in_crowd)).ap == pytest.approx(1.0)
    elsewhere = answer(44, (BEAR, 0.99, (60, 10, 80, 60)))  # a picture without objects
    accuracy = score(odd.truth, results(odd, *PERFECT[:2], elsewhere))
    assert accuracy.ap == pytest.approx((0.5 + 1.0) / 2)  # of the bear, one of two is right at every recall


def test_a_swapped_label_is_wrong_however_good_the_box(odd: CocoDataset) -> None:
    swapped = answer(901, (CIRCLE, 0.9, (10, 10, 50, 50)), (BEAR, 0.8, (60, 10, 90, 40)))
    assert score(odd.truth, results(odd, swapped)).ap == 0.0


def test_ap75_and_ap_fall_where_boxes_are_a_little_off(odd: CocoDataset) -> None:
    # IoU 40 * 30 / (40 * 50) = 0.6 for the bear: right at 0.50, 0.55 and 0.60 of ten thresholds.
    off = answer(901, (BEAR, 0.9, (10, 20, 50, 60)), (CIRCLE, 0.8, (60, 10, 90, 40)))
    accuracy = score(odd.truth, results(odd, off, PERFECT[1]))
    assert accuracy.ap == pytest.approx((0.3 + 1.0) / 2)
    assert (accuracy.ap50, accuracy.ap75) == pytest.approx((1.0, 0.5))
    assert accuracy.ar == pytest.approx((0.3 + 1.0) / 2)


def test_no_answers_at_all_score_nothing(odd: CocoDataset) -> None:
    assert score(odd.truth, []) == Accuracy(scenes=3, ap=0.0, ap50=0.0, ap75=0.0, ar=0.0)


def test_figures_are_those_of_pycocotools_on_the_files(scenes: CocoDataset, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    found = []
    for truth in scenes.truth["annotations"]:  # boxes that are off, and labels that are wrong, by chance
        x, y, width, height = (side + float(rng.normal(0, 6)) for side in truth["bbox"])
        category = truth["category_id"] if rng.random() < 0.8 else 1
        box = [x, y, max(width, 1.0), max(height, 1.0)]
        found.append(
            {"image_id": truth["image_id"], "category_id": category, "bbox": box, "score": float(rng.random())}
        )
    file = tmp_path / "results.json"
    file.write_text(json.dumps(found), encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = COCO(str(scenes.file))
        evaluation = COCOeval(annotated, annotated.loadRes(str(file)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    accuracy = score(scenes.truth, found)
    expected = [evaluation.stats[place] for place in (0, 1, 2, 8)]
    assert [accuracy.ap, accuracy.ap50, accuracy.ap75, accuracy.ar] == pytest.approx(expected)
    assert 0.05 < accuracy.ap < 0.95  # neither perfect nor nothing, so that a difference would show
