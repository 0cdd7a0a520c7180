"""Accuracy of a demo checkpoint on held-out scenes, all 24 labels in the prompt, through torch.

    python demo/evaluate.py --checkpoint demo/checkpoint.safetensors --scenes 500

`gdino-build evaluate` measures the same through the server, on the same pictures and with the same scorer.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from coco import FIRST_CATEGORY_ID, draw_scene, encode_scene, native_hw, scenes_to_coco
from gdino_build.accuracy.answers import Answer, Found
from gdino_build.accuracy.scoring import Accuracy, answer_to_coco
from gdino_build.accuracy.scoring import score as score_coco
from gdino_build.checkpoint import canonical_state_dict, load_model, read_state_dict
from gdino_build.model import DEMO, GroundingDino
from gdino_build.profile import load_profile
from gdino_core.detections import DetectionArrays, DetectionOptions, postprocess
from gdino_core.errors import GdinoError
from gdino_core.image import preprocess_image
from gdino_core.prompt import encode_prompt
from scenes import LABELS, Scene
from trainable import training_outputs

SETTINGS = load_profile("demo-cpu").preprocess
# Average precision ranks everything, so nothing is thrown away by score.
OPTIONS = DetectionOptions(box_threshold=0.0, max_detections=300)
CATEGORY_IDS = tuple(range(FIRST_CATEGORY_ID, FIRST_CATEGORY_ID + len(LABELS)))


def evaluate_model(model: GroundingDino, scene_count: int, *, show_progress: bool) -> Accuracy:
    """Detect all labels in held-out scenes and score the result.

    Args:
        model: the model, on any device.
        scene_count: the first so many held-out scenes.
        show_progress: whether to draw a progress bar.

    Returns:
        The accuracy.
    """
    scenes = [draw_scene("held-out", index) for index in range(scene_count)]
    bar = tqdm(scenes, desc="held-out scenes", disable=not show_progress)
    return score(scenes, [detect_labels(model, scene) for scene in bar])


@torch.no_grad()
def detect_labels(model: GroundingDino, scene: Scene) -> DetectionArrays:
    """Detect all LABELS in a scene as serving does: encoded picture in, boxes in its pixels out."""
    device = next(model.parameters()).device
    image = preprocess_image(encode_scene(scene), SETTINGS)
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


def score(scenes: Sequence[Scene], detections: Sequence[DetectionArrays]) -> Accuracy:
    """Compare detections with the scenes they were made from.

    Args:
        scenes: the scenes, at least one.
        detections: of each scene at its native size; `label_index` counts in LABELS.

    Returns:
        The accuracy, from pycocotools.
    """
    results = []
    for image_id, (scene, found) in enumerate(zip(scenes, detections, strict=True)):
        answer = Found(
            boxes_xyxy=found.boxes_xyxy,
            scores=found.scores,
            label_index=found.label_index,
            image_hw=native_hw(scene),
        )
        results += answer_to_coco(Answer(image_id=image_id, picture_sha256="", found=answer), CATEGORY_IDS)
    return score_coco(scenes_to_coco(scenes), results)


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
