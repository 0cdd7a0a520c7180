"""The golden file of one model: cases, each one picture and what the original answered; numpy only."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from gdino_build.pictures import Picture, draw_picture

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

LEVEL_STRIDES = (8, 16, 32, 64)  # pixels a cell


@dataclass(frozen=True, kw_only=True)
class Case:
    """One picture and its caption.

    Attributes:
        name: unique in its file.
        seed: chooses the drawn picture.
        picture_hw: its height and width, in pixels.
        valid_hw: height and width that it is resized to; `picture_hw` where it is taken as it is.
        padded_hw: the frame that our stages lay it in, multiples of 32; the original sees the picture alone.
        caption: as a user writes it.
    """

    name: str
    seed: int
    picture_hw: tuple[int, int]
    valid_hw: tuple[int, int]
    padded_hw: tuple[int, int]
    caption: str

    def picture(self) -> Picture:
        """The picture before it is resized, uint8 [H, W, 3], RGB."""
        return draw_picture(self.seed, *self.picture_hw)

    def padded_picture(self) -> Picture:
        """The resized picture at the top left of its frame, black beyond: uint8 [H, W, 3]."""
        height, width = self.valid_hw
        resized = Image.fromarray(self.picture()).resize((width, height), Image.Resampling.BILINEAR)
        picture = np.zeros((*self.padded_hw, 3), np.uint8)
        picture[:height, :width] = np.asarray(resized)
        return picture


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the original computed for a case, from the picture alone.

    Attributes:
        pixels_sha256: of the resized picture's bytes, uint8 [h, w, 3]; an array of one text.
        input_ids: int32 [T], with [CLS] and [SEP], no padding.
        position_ids: int32 [T].
        phrase_ids: int32 [T]; the original lets tokens i, j attend to each other exactly when theirs are equal.
        text_features: float32 [T, C], BERT's output projected.
        queries: int32 [K], the queries that score best, best first; of these logits and boxes are kept.
        logits: float32 [K, T].
        boxes: float32 [K, 4], cx, cy, w, h as fractions of the picture.
        proposals: int32 [Q], the image tokens chosen by the encoder's scores, best first, numbered as in the frame.
        proposal_scores: float32 [Q], their scores.
        runner_ups: int32 [R], the image tokens that just missed, numbered as in the frame.
        runner_up_scores: float32 [R], their scores: a swap between tokens whose scores agree to rounding is no error.
    """

    pixels_sha256: npt.NDArray[np.str_]
    input_ids: Ints
    position_ids: Ints
    phrase_ids: Ints
    text_features: Floats
    queries: Ints
    logits: Floats
    boxes: Floats
    proposals: Ints
    proposal_scores: Floats
    runner_ups: Ints
    runner_up_scores: Floats


@dataclass(frozen=True, kw_only=True)
class Golden:
    """A golden file: which weights, made with what, and the answers case by case."""

    model: str
    weights_sha256: str
    made_with: str
    cases: tuple[tuple[Case, Answer], ...]


def tokens_in_frame(tokens: Ints, valid_hw: tuple[int, int], padded_hw: tuple[int, int]) -> Ints:
    """Number image tokens of a picture as they are numbered when the picture lies in a larger frame.

    Args:
        tokens: int32 [n], counted through the levels of the picture alone, row by row.
        valid_hw: height and width of the picture, in pixels.
        padded_hw: height and width of the frame.
    """
    places = [np.arange(rows * columns).reshape(rows, columns) for rows, columns in _levels(padded_hw)]
    starts = np.cumsum([0, *(place.size for place in places)])
    numbers = [
        (start + place[:rows, :columns]).ravel()
        for start, place, (rows, columns) in zip(starts, places, _levels(valid_hw), strict=False)
    ]
    framed: Ints = np.concatenate(numbers)[tokens].astype(np.int32)
    return framed


def reframe(case: Case, answer: Answer, padded_hw: tuple[int, int]) -> tuple[Case, Answer]:
    """The same case in another frame [H, W] that holds its picture: its image tokens get the numbers of that frame."""
    tokens = np.arange(sum(rows * columns for rows, columns in _levels(case.valid_hw)), dtype=np.int32)
    before = tokens_in_frame(tokens, case.valid_hw, case.padded_hw)
    after = tokens_in_frame(tokens, case.valid_hw, padded_hw)
    numbers = {name: after[np.searchsorted(before, getattr(answer, name))] for name in ("proposals", "runner_ups")}
    return replace(case, padded_hw=padded_hw), replace(answer, **numbers)


def _levels(hw: tuple[int, int]) -> list[tuple[int, int]]:
    return [(-(-hw[0] // stride), -(-hw[1] // stride)) for stride in LEVEL_STRIDES]


def pixels_sha256(pixels: npt.NDArray[np.uint8]) -> str:
    """SHA-256 of the bytes of a picture uint8 [h, w, 3], in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def weights_sha256(tensors: Iterable[tuple[str, npt.NDArray[np.float32]]]) -> str:
    """Hash weights by value: each name and its float32 bytes, by rising name."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors, key=lambda item: item[0]):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value, dtype="<f4").tobytes())
    return digest.hexdigest()


def save_golden(golden: Golden, path: Path) -> None:
    """Write a golden file: one JSON array of the cases, and `case.field` arrays."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    description = {
        "model": golden.model,
        "weights_sha256": golden.weights_sha256,
        "made_with": golden.made_with,
        "cases": [asdict(case) for case, _ in golden.cases],
    }
    arrays["description"] = np.array(json.dumps(description, ensure_ascii=False))
    for case, answer in golden.cases:
        for field in fields(answer):
            arrays[f"{case.name}.{field.name}"] = getattr(answer, field.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    # numpy stamps the time of writing on no member, so the same answers give the same file.
    np.savez_compressed(path, allow_pickle=False, **arrays)


def load_golden(path: Path) -> Golden:
    """Read a golden file."""
    with np.load(path, allow_pickle=False) as arrays:
        description = json.loads(str(arrays["description"]))
        cases = tuple((case := _read_case(item), _read_answer(arrays, case.name)) for item in description["cases"])
    return Golden(
        model=description["model"],
        weights_sha256=description["weights_sha256"],
        made_with=description["made_with"],
        cases=cases,
    )


def _read_case(item: Mapping[str, Any]) -> Case:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in item.items()}
    return Case(**values)


def _read_answer(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> Answer:
    return Answer(**{field.name: arrays[f"{name}.{field.name}"] for field in fields(Answer)})
