"""Ask about every picture of a data set that has no answer yet."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gdino_build.accuracy.answers import Answer, AnswerFile, Found
from gdino_build.accuracy.dataset import CocoDataset, CocoPicture
from gdino_build.accuracy.scoring import answer_to_coco
from gdino_core.errors import ConfigError, ImageError, RequestRejected

Ask = Callable[[bytes], Found]  # an encoded picture in, what was found out


def answer_all(
    dataset: CocoDataset, answers: AnswerFile, ask: Ask, *, in_flight: int = 1, title: str = "pictures"
) -> None:
    """Ask about the pictures that are not answered, and keep each answer as it comes.

    An answer about a picture whose file has changed since counts as none.

    Args:
        dataset: whose pictures.
        answers: those that are there, and where new ones go.
        ask: is called from `in_flight` threads.
        in_flight: how many pictures are asked about at once.
        title: of the progress bar.

    Raises:
        ConfigError: a picture is not of the size that the data set says.
        GdinoError: what `ask` raises; the answers that came before it are kept.
    """
    missing = unanswered(dataset, answers)
    done = len(dataset.pictures) - len(missing)
    bar = tqdm(total=len(dataset.pictures), initial=done, desc=title, unit="picture", disable=None)
    with bar, ThreadPoolExecutor(in_flight) as pool:
        try:
            for answer in _completed(pool, missing, ask, in_flight):
                answers.append(answer)
                bar.update()
        finally:
            pool.shutdown(cancel_futures=True)


def unanswered(dataset: CocoDataset, answers: AnswerFile) -> list[CocoPicture]:
    """The pictures without an answer, or whose file is not the one that was asked about."""
    return [
        picture
        for picture in dataset.pictures
        if picture.image_id not in answers.answers
        or answers.answers[picture.image_id].picture_sha256 != _sha256(picture.path.read_bytes())
    ]


def coco_results(dataset: CocoDataset, answers: AnswerFile) -> list[dict[str, Any]]:
    """All answers about a data set in COCO's form."""
    return [
        result
        for picture in dataset.pictures
        for result in answer_to_coco(answers.answers[picture.image_id], dataset.category_ids)
    ]


def ask_about(picture: CocoPicture, ask: Ask) -> Answer:
    """Ask about one picture.

    Raises:
        ConfigError: it is not of the size that the data set says.
        GdinoError: what `ask` raises; it names the picture where that is refused.
    """
    data = picture.path.read_bytes()
    try:
        found = ask(data)
    except (ImageError, RequestRejected) as error:
        raise type(error)(f"{picture.path.name}: {error.message}", fix=error.fix) from error
    _check_size(picture.path, picture.image_hw, found.image_hw)
    return Answer(image_id=picture.image_id, picture_sha256=_sha256(data), found=found)


def _completed(pool: ThreadPoolExecutor, pictures: Sequence[CocoPicture], ask: Ask, in_flight: int) -> Iterator[Answer]:
    """Answers as they come; no more pictures are read than are asked about."""
    pending: set[Future[Answer]] = set()
    for picture in pictures:
        if len(pending) == in_flight:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
        pending.add(pool.submit(ask_about, picture, ask))
    yield from (future.result() for future in pending)


def _check_size(path: Path, annotated_hw: tuple[int, int], found_hw: tuple[int, int]) -> None:
    if found_hw != annotated_hw:
        raise ConfigError(
            f"{path.name} is annotated with height and width {annotated_hw}, the upright picture has {found_hw}: "
            "its boxes would be compared with those of another frame",
            fix="annotate the picture as it is seen, after its EXIF orientation, or name the right folder",
        )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
