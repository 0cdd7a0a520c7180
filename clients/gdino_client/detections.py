"""What was found in one picture."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Detection:
    """One object that was found.

    Attributes:
        label: the label that was asked for, or for a caption the phrase, which can be empty.
        label_index: its place among the labels that were asked for, -1 for a caption.
        score: from 0 to 1; of a caption the best token's, of labels the mean over the label's tokens.
        box_xyxy: x0, y0, x1, y1 in pixels of the upright picture.
    """

    label: str
    label_index: int
    score: float
    box_xyxy: tuple[float, float, float, float]

    def to_dict(self) -> dict[str, Any]:
        """Return it as it stands in JSON."""
        return {
            "label": self.label,
            "label_index": self.label_index,
            "score": self.score,
            "box_xyxy": list(self.box_xyxy),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """All that was found in one picture, by falling score; iterating gives one Detection after the other.

    Attributes:
        boxes_xyxy: float32 [n, 4], x0, y0, x1, y1 in pixels of the upright picture (EXIF applied).
        scores: float32 [n] in [0, 1].
        labels: n texts.
        label_index: int32 [n], -1 for a caption.
        image_hw: height and width of the upright picture, in pixels.
        prompt: the labels that were asked for, or the phrases of the caption.
    """

    boxes_xyxy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    labels: tuple[str, ...]
    label_index: npt.NDArray[np.int32]
    image_hw: tuple[int, int]
    prompt: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Detection]:
        for box, score, label, index in zip(self.boxes_xyxy, self.scores, self.labels, self.label_index, strict=True):
            x0, y0, x1, y1 = map(_shortest, box)
            yield Detection(label=label, label_index=int(index), score=_shortest(score), box_xyxy=(x0, y0, x1, y1))

    def to_dict(self, *, file: str) -> dict[str, Any]:
        """Return one object of the `images` of detections.json.

        Args:
            file: what the picture is called there, which only the caller knows.
        """
        height, width = self.image_hw
        return {
            "file": file,
            "width": width,
            "height": height,
            "prompt": list(self.prompt),
            "detections": [detection.to_dict() for detection in self],
        }


def _shortest(value: np.float32) -> float:
    # float(value) would write 0.9 as 0.8999999761581421; this is still the same float32 when read back.
    return float(np.format_float_positional(value, unique=True, trim="0"))
