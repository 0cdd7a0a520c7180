"""Every picture is asked about once, and what came before a failure is kept."""

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gdino_build.accuracy.answers import AnswerFile, Found
from gdino_build.accuracy.asking import answer_all, coco_results, unanswered
from gdino_build.accuracy.dataset import CocoDataset, load_coco
from gdino_core.errors import ConfigError, RequestRejected, ServerError
from tests.accuracy.datasets import write_odd


class Asked:
    """Finds one box in every picture; fails after so many."""

    def __init__(self, most: int = 1000, image_hw: tuple[int, int] = (80, 100)) -> None:
        self.count, self._most, self._image_hw = 0, most, image_hw
        self._lock = threading.Lock()

    def __call__(self, data: bytes) -> Found:
        with self._lock:
            self.count += 1
            if self.count > self._most:
                raise ServerError("the server has ended")
        return Found(
            boxes_xyxy=np.array([[1, 2, 11, 22]], np.float32),
            scores=np.array([0.5], np.float32),
            label_index=np.array([1], np.int32),
            image_hw=self._image_hw,
        )


@pytest.fixture
def dataset(tmp_path: Path) -> CocoDataset:
    return load_coco(write_odd(tmp_path), tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


@pytest.mark.parametrize("in_flight", [1, 2, 4])
def test_every_picture_is_asked_about_once(dataset: CocoDataset, path: Path, in_flight: int) -> None:
    ask = Asked()
    with AnswerFile(path, {}) as answers:
        answer_all(dataset, answers, ask, in_flight=in_flight)
        assert ask.count == 3
        assert [result["image_id"] for result in coco_results(dataset, answers)] == [901, 7, 44]
        assert coco_results(dataset, answers)[0] == {
            "image_id": 901,
            "category_id": 17,
            "bbox": [1, 2, 10, 20],
            "score": 0.5,
        }
        answer_all(dataset, answers, ask)
        assert ask.count == 3


def test_what_was_answered_before_a_failure_is_kept_and_the_rest_asked_later(dataset: CocoDataset, path: Path) -> None:
    with AnswerFile(path, {}) as answers, pytest.raises(ServerError, match="has ended"):
        answer_all(dataset, answers, Asked(most=2))
    again = Asked()
    with AnswerFile(path, {}) as answers:
        assert sorted(answers.answers) == [7, 901]
        answer_all(dataset, answers, again)
    assert again.count == 1


def test_a_picture_that_has_changed_is_asked_about_again(dataset: CocoDataset, path: Path) -> None:
    with AnswerFile(path, {}) as answers:
        answer_all(dataset, answers, Asked())
        Image.new("RGB", (100, 80), "red").save(dataset.pictures[1].path)
        assert unanswered(dataset, answers) == [dataset.pictures[1]]
        again = Asked()
        answer_all(dataset, answers, again)
    assert again.count == 1


def test_a_picture_that_is_refused_is_named(dataset: CocoDataset, path: Path) -> None:
    def refuse(data: bytes) -> Found:
        raise RequestRejected("IMAGE is no picture", fix="send a JPEG or PNG")

    with AnswerFile(path, {}) as answers, pytest.raises(RequestRejected, match=r"one.png: IMAGE is .*\n  fix: send a"):
        answer_all(dataset, answers, refuse)


def test_a_picture_of_another_size_than_annotated_is_refused(dataset: CocoDataset, path: Path) -> None:
    # As of one whose EXIF orientation turns it: its boxes would be compared with those of another frame.
    with AnswerFile(path, {}) as answers, pytest.raises(ConfigError, match=r"one.png is annotated .*\(80, 100\)"):
        answer_all(dataset, answers, Asked(image_hw=(100, 80)))
