"""Score detections as COCO does, with pycocotools."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gdino_build.accuracy.answers import Answer


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """COCO's figures over all pictures, each in [0, 1].

    Attributes:
        scenes: number of pictures.
        ap: average precision, mean over IoU 0.50 to 0.95 and the labels that are annotated.
        ap50: average precision at IoU 0.50.
        ap75: average precision at IoU 0.75.
        ar: average recall with 100 detections a picture.
    """

    scenes: int
    ap: float
    ap50: float
    ap75: float
    ar: float

    def describe(self) -> str:
        """One line for a log, in [0, 1]."""
        return f"{self.scenes} pictures: AP {self.ap:.3f}  AP50 {self.ap50:.3f}  AP75 {self.ap75:.3f}  AR {self.ar:.3f}"


def score(truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> Accuracy:
    """Compare detections with what is annotated.

    Args:
        truth: `images`, `annotations` and `categories` in COCO's form; the annotations have ids from 1.
        results: detections in COCO's form: image_id, category_id, bbox, score.
    """
    scenes = len(truth["images"])
    if not results:  # pycocotools refuses an empty list
        return Accuracy(scenes=scenes, ap=0.0, ap50=0.0, ap75=0.0, ar=0.0)
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it prints a table and its own progress
        annotated = COCO()
        annotated.dataset = dict(truth)
        annotated.createIndex()
        evaluation = COCOeval(annotated, annotated.loadRes(list(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ap, ap50, ap75, ar = (float(evaluation.stats[place]) for place in (0, 1, 2, 8))
    return Accuracy(scenes=scenes, ap=ap, ap50=ap50, ap75=ap75, ar=ar)


def answer_to_coco(answer: Answer, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Turn an answer into COCO's results.

    Args:
        answer: whose label_index counts in `category_ids`.
        category_ids: the category of each label that was asked for.
    """
    return [
        {
            "image_id": answer.image_id,
            "category_id": category_ids[label],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": confidence,
        }
        for label, (x0, y0, x1, y1), confidence in zip(
            answer.found.label_index.tolist(),
            answer.found.boxes_xyxy.tolist(),
            answer.found.scores.tolist(),
            strict=True,
        )
    ]
