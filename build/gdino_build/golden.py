"""The golden file of one model: cases, each one picture and what the original answered; numpy only."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gdino_build.pictures import Picture, draw_picture

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One picture and its caption: a drawn picture of `valid_hw` at the top left of a padded one of `padded_hw`."""

    name: str
    seed: int
    padded_hw: tuple[int, int]
    valid_hw: tuple[int, int]
    caption: str

    def padded_picture(self) -> Picture:
        """The picture as uint8 [H, W, 3], black where it is padded."""
        picture = np.zeros((*self.padded_hw, 3), np.uint8)
        picture[: self.valid_hw[0], : self.valid_hw[1]] = draw_picture(self.seed, *self.valid_hw)
        return picture


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the original computed for a case.

    Attributes:
        input_ids: int32 [T], with [CLS] and [SEP], no padding.
        position_ids: int32 [T].
        phrase_ids: int32 [T]; the original lets tokens i, j attend to each other exactly when theirs are equal.
        text_features: float32 [T, C], BERT's output projected.
        logits: float32 [Q, T].
        boxes: float32 [Q, 4], cx, cy, w, h as fractions of the valid region.
        proposals: int32 [Q], the image tokens chosen by the encoder's scores, best first.
        proposal_scores: float32 [Q], their scores.
        runner_ups: int32 [R], the image tokens that just missed.
        runner_up_scores: float32 [R], their scores: a swap between tokens whose scores agree to rounding is no error.
    """

    input_ids: Ints
    position_ids: Ints
    phrase_ids: Ints
    text_features: Floats
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
