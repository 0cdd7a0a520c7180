"""Accuracy of a demo checkpoint on held-out scenes, all 24 labels in the prompt, through torch.

python demo/evaluate.py --checkpoint demo/checkpoint.safetensors --scenes 500
"""

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from tqdm import tqdm

from batches import EVALUATION_STREAM, stream
from gdino_build.checkpoint import canonical_state_dict, load_model, read_state_dict
from gdino_build.model import DEMO, GroundingDino
from gdino_build.profile import load_profile
from gdino_core.detections import DetectionArrays, DetectionOptions, postprocess
from gdino_core.errors import GdinoError
from gdino_core.image import preprocess_image
from gdino_core.prompt import encode_prompt
from scenes import LABELS, Scene, boxes_xyxy, random_scene, render
from trainable import training_outputs

NATIVE_SHORT_SIDE = 480
SETTINGS = load_profile("demo-cpu").preprocess
# Average precision ranks everything, so nothing is thrown away by score.
OPTIONS = DetectionOptions(box_threshold=0.0, max_detections=300)


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """COCO's figures over all scenes, each in [0, 1].

    Attributes:
        scenes: number of scenes.
        ap: average precision, mean over IoU 0.50 to 0.95 and the labels.
        ap50: average precision at IoU 0.50.
        ar: average recall with 100 detections a picture.
    """

    scenes: int
    ap: float
    ap50: float
    ar: float

    def describe(self) -> str:
        """One line for a log."""
        return f"{self.scenes} held-out scenes: AP {self.ap:.3f}  AP50 {self.ap50:.3f}  AR {self.ar:.3f}"


def held_out_scene(index: int) -> Scene:
    """Draw the scene with an index; training never sees it: its random numbers are another stream's."""
    return random_scene(stream(EVALUATION_STREAM, 0, index))


def native_hw(scene: Scene) -> tuple[int, int]:
    """Height and width of a scene's picture with a short side of NATIVE_SHORT_SIDE pixels."""
    width, height = (round(NATIVE_SHORT_SIDE * extent) for extent in scene.extent_xy)
    return height, width


def evaluate_model(model: GroundingDino, scene_count: int, *, show_progress: bool) -> Accuracy:
    """Detect all labels in held-out scenes and score the result.

    Args:
        model: the model, on any device.
        scene_count: the first so many held-out scenes.
        show_progress: whether to draw a progress bar.

    Returns:
        The accuracy.
    """
    scenes = [held_out_scene(index) for index in range(scene_count)]
    bar = tqdm(scenes, desc="held-out scenes", disable=not show_progress)
    return score(scenes, [detect_labels(model, scene) for scene in bar])


@torch.no_grad()
def detect_labels(model: GroundingDino, scene: Scene) -> DetectionArrays:
    """Detect all LABELS in a scene as serving does: encoded picture in, boxes in its pixels out."""
    device = next(model.parameters()).device
    image = preprocess_image(encode_png(render(scene, *native_hw(scene))), SETTINGS)
    prompt = encode_prompt(LABELS, SETTINGS.text_buckets)

    def batched(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.array(array))[None].to(device)

    outputs = training_outputs(
        model,
        batched(image.pixels),
        batched(image.valid_hw),
        batched(prompt.input_ids),
        batched(prompt.position_ids),
        batched(prompt.phrase_ids),
    )
    logits, boxes = outputs.decoder_logits[-1][0], outputs.decoder_boxes[-1][0]
    return postprocess(logits.cpu().numpy(), boxes.cpu().numpy(), prompt, native_hw(scene), OPTIONS)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode HWC uint8 RGB as a PNG, quickly rather than small."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def score(scenes: Iterable[Scene], detections: Iterable[DetectionArrays]) -> Accuracy:
    """Compare detections with the scenes they were made from.

    Args:
        scenes: the scenes, at least one.
        detections: of each scene at its native size; `label_index` counts in LABELS.

    Returns:
        The accuracy, from pycocotools.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for index, (scene, found) in enumerate(zip(scenes, detections, strict=True)):
        height, width = native_hw(scene)
        images.append({"id": index, "height": height, "width": width})
        for label, box in zip(scene.labels, boxes_xyxy(scene, height, width), strict=True):
            annotation = coco_box(index, LABELS.index(label), box)
            annotations.append(annotation | {"id": len(annotations) + 1, "iscrowd": 0})
        for label_index, box, confidence in zip(found.label_index, found.boxes_xyxy, found.scores, strict=True):
            results.append(coco_box(index, int(label_index), box) | {"score": float(confidence)})
    categories = [{"id": index, "name": label} for index, label in enumerate(LABELS)]
    dataset = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    return _coco_accuracy(dataset, results)


def coco_box(image_id: int, category_id: int, box_xyxy: NDArray[np.float32]) -> dict[str, Any]:
    """Describe a box in COCO's terms: x, y, width, height and area, in pixels."""
    x0, y0, x1, y1 = (float(value) for value in box_xyxy)
    width, height = x1 - x0, y1 - y0
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [x0, y0, width, height],
        "area": width * height,
    }


def _coco_accuracy(dataset: dict[str, Any], results: list[dict[str, Any]]) -> Accuracy:
    scenes = len(dataset["images"])
    if not results:  # pycocotools refuses an empty list
        return Accuracy(scenes=scenes, ap=0.0, ap50=0.0, ar=0.0)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a table and its own progress
        truth = COCO()
        truth.dataset = dataset
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures = evaluation.stats
    return Accuracy(scenes=scenes, ap=float(figures[0]), ap50=float(figures[1]), ar=float(figures[8]))


def load_checkpoint(path: Path) -> GroundingDino:
    """Build the demo model with the weights of a checkpoint, in float32."""
    return load_model(DEMO, canonical_state_dict(read_state_dict(path)))


def main() -> int:
    """Print the accuracy of a checkpoint as JSON; returns an exit code."""
    parser = argparse.ArgumentParser(description="Measure a demo checkpoint on held-out scenes.")
    parser.add_argument("--checkpoint", type=Path, default=Path("demo/checkpoint.safetensors"))
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        model = load_checkpoint(arguments.checkpoint)
    except GdinoError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    accuracy = evaluate_model(model, arguments.scenes, show_progress=True)
    print(json.dumps(asdict(accuracy)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
