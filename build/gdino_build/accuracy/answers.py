"""Keep answers as they come, one JSON line a picture, so that a broken-off run goes on where it stopped."""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gdino_core.errors import ConfigError

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What was found in one picture, by falling score.

    Attributes:
        boxes_xyxy: float32 [n, 4], x0, y0, x1, y1 in pixels of the picture.
        scores: float32 [n].
        label_index: int32 [n], the place among the labels that were asked for.
        image_hw: height and width that the boxes refer to.
    """

    boxes_xyxy: Floats
    scores: Floats
    label_index: npt.NDArray[np.int32]
    image_hw: tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What was found in a picture of a data set.

    Attributes:
        image_id: of the picture in the annotation file.
        picture_sha256: of the file that was asked about.
        found: what was found.
    """

    image_id: int
    picture_sha256: str
    found: Found


class AnswerFile:
    """Answers on a disk; a context manager, because it keeps others from writing to the file.

    The first line, the header, says of what the answers are. Where another header is found, all answers go: those of
    another engine, data set or setting are never mixed. What follows a line that is torn, by a kill or a full disk, is
    dropped too.

    Args:
        path: of the file; made when missing.
        header: anything that JSON can hold.

    Attributes:
        answers: by image_id.

    Raises:
        ConfigError: another process writes to the file.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise ConfigError(
                f"another process is writing to {path}", fix="wait until it has ended, or stop it"
            ) from error
        self.answers = self._read(header)
        self._file.truncate()
        if self._file.tell() == 0:
            self._write(header)

    def append(self, answer: Answer) -> None:
        """Keep one more answer; when this returns, a kill of this process does not lose it."""
        self._write(_to_json(answer))
        self.answers[answer.image_id] = answer

    def close(self) -> None:
        """Let others write."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, header: Mapping[str, Any]) -> dict[int, Answer]:
        """Read the answers, and stop at the end of the last good one; at the start where the header is another."""
        answers: dict[int, Answer] = {}
        end = 0
        for line in self._file:
            try:
                content = json.loads(line) if line.endswith(b"\n") else None
                if end == 0 and content != json.loads(json.dumps(header)):  # as it comes back: tuples as lists
                    break
                if end > 0:
                    answer = _from_json(content)
                    answers[answer.image_id] = answer
            except (ValueError, KeyError, TypeError):
                break
            end += len(line)
        self._file.seek(end)
        return answers

    def _write(self, content: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(content, separators=(",", ":")).encode() + b"\n")
        self._file.flush()


def _to_json(answer: Answer) -> dict[str, Any]:
    return {
        "image_id": answer.image_id,
        "picture_sha256": answer.picture_sha256,
        "image_hw": answer.found.image_hw,
        "label_index": answer.found.label_index.tolist(),
        "scores": _shortest(answer.found.scores),
        "boxes_xyxy": [_shortest(box) for box in answer.found.boxes_xyxy],
    }


def _from_json(content: Any) -> Answer:
    height, width = content["image_hw"]
    return Answer(
        image_id=content["image_id"],
        picture_sha256=content["picture_sha256"],
        found=Found(
            boxes_xyxy=np.array(content["boxes_xyxy"], np.float32).reshape(-1, 4),
            scores=np.array(content["scores"], np.float32),
            label_index=np.array(content["label_index"], np.int32),
            image_hw=(height, width),
        ),
    )


def _shortest(values: Floats) -> list[float]:
    """The shortest numbers that are these float32 when read back: a third of the bytes of tolist()."""
    return [float(str(value)) for value in values]
