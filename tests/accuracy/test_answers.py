"""Answers on the disk: none is lost, none is mixed with those to another question."""

from pathlib import Path

import numpy as np
import pytest

from gdino_build.accuracy.answers import Answer, AnswerFile, Found
from gdino_core.errors import ConfigError

HEADER = {"engines": {"detector": "1" * 64}, "annotations_sha256": "2" * 64, "box_threshold": 0.0, "sizes": (1, 2)}


def make_answer(image_id: int, count: int = 3) -> Answer:
    rng = np.random.default_rng(image_id)
    return Answer(
        image_id=image_id,
        picture_sha256=f"{image_id:064}",
        found=Found(
            boxes_xyxy=(640 * rng.random((count, 4))).astype(np.float32),
            scores=rng.random(count).astype(np.float32),
            label_index=rng.integers(0, 24, count).astype(np.int32),
            image_hw=(480, 640),
        ),
    )


def write_answers(path: Path, *image_ids: int) -> None:
    with AnswerFile(path, HEADER) as answers:
        for image_id in image_ids:
            answers.append(make_answer(image_id))


def test_answers_come_back_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "out" / "answers.jsonl"
    written = [make_answer(0, 300), make_answer(1, 0)]
    with AnswerFile(path, HEADER) as answers:
        for one in written:
            answers.append(one)
    with AnswerFile(path, HEADER) as answers:
        read = [answers.answers[one.image_id] for one in written]
    for one, other in zip(written, read, strict=True):
        assert (one.picture_sha256, one.found.image_hw) == (other.picture_sha256, other.found.image_hw)
        for name in ("boxes_xyxy", "scores", "label_index"):
            expected, found = getattr(one.found, name), getattr(other.found, name)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("torn", [1, 30, -2])
def test_a_torn_last_line_is_dropped_and_the_answers_before_it_stay(tmp_path: Path, torn: int) -> None:
    path = tmp_path / "answers.jsonl"
    write_answers(path, 1, 2)
    whole = path.read_bytes()
    write_answers(path, 3)
    last = path.read_bytes().removeprefix(whole)
    path.write_bytes(whole + last[:torn])
    with AnswerFile(path, HEADER) as answers:
        assert sorted(answers.answers) == [1, 2]
        answers.append(make_answer(3))
    assert path.read_bytes() == whole + last


def test_a_whole_last_line_without_its_end_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    write_answers(path, 1, 2)
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))  # the next line would be glued to it
    write_answers(path, 2)
    with AnswerFile(path, HEADER) as answers:
        assert sorted(answers.answers) == [1, 2]


@pytest.mark.parametrize("change", [{"engines": {"detector": "3" * 64}}, {"annotations_sha256": ""}, {"new": 1}])
def test_answers_under_another_header_go(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "answers.jsonl"
    write_answers(path, 1, 2)
    with AnswerFile(path, {**HEADER, **change}) as answers:
        assert not answers.answers
        answers.append(make_answer(9))
    assert path.read_bytes().count(b"\n") == 2  # the header and one answer: nothing of the old ones is left behind
    with AnswerFile(path, HEADER) as answers:
        assert not answers.answers


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\n", b"[1]\n[2]\n", b'{"image_id": 1}\n'])
def test_a_file_of_something_else_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(content)
    write_answers(path, 4)
    with AnswerFile(path, HEADER) as answers:
        assert sorted(answers.answers) == [4]


def test_a_line_that_is_no_answer_ends_what_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    write_answers(path, 1)
    with path.open("ab") as file:
        file.write(b'{"image_id": 2}\n')
    write_answers(path, 3)
    with AnswerFile(path, HEADER) as answers:
        assert sorted(answers.answers) == [1, 3]


def test_a_later_answer_about_a_picture_takes_the_place_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerFile(path, HEADER) as answers:
        answers.append(make_answer(1, 2))
        answers.append(make_answer(1, 5))
    with AnswerFile(path, HEADER) as answers:
        assert len(answers.answers[1].found.scores) == 5


def test_two_runs_never_write_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerFile(path, HEADER), pytest.raises(ConfigError, match="another process is writing to"):
        AnswerFile(path, HEADER)
    write_answers(path, 1)  # the first has let go
