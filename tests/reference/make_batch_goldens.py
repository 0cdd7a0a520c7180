"""Ask the original for one picture with several prompts, one by one and as one batch; runs in .venv-reference.

In a batch the original gives pictures the text masks of other prompts: `src_mask.repeat(nhead, 1, 1)` lays the masks
out head by head, where `nn.MultiheadAttention` reads them picture by picture (transformer_vanilla.py; GroundingDINO
issue #294).
"""

import json
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from tests.reference.cases import BATCH_CAPTIONS, BATCH_PICTURE, RESIZES
from tests.reference.original import versions
from tests.reference.original.images import normalise, resize
from tests.reference.original.model import build_original, load_weights
from tests.reference.original.text import preprocess_caption

_ROOT = Path(__file__).parents[2]
_BOX_THRESHOLD = 0.35

Detection = dict[str, float | list[float]]


def main() -> None:
    """Write tests/goldens/batch.json."""
    torch.set_num_threads(1)
    model = build_original("demo")
    load_weights(model, _ROOT / "demo" / "checkpoint.safetensors")
    picture = normalise(resize(Image.open(_ROOT / BATCH_PICTURE).convert("RGB"), *RESIZES["demo"]))
    together = _ask(model, picture, BATCH_CAPTIONS)
    prompts = [
        {"caption": caption, "alone": _ask(model, picture, (caption,))[0], "in_batch": in_batch}
        for caption, in_batch in zip(BATCH_CAPTIONS, together, strict=True)
    ]
    golden = {"made_with": versions(), "picture": BATCH_PICTURE, "box_threshold": _BOX_THRESHOLD, "prompts": prompts}
    path = _ROOT / "tests" / "goldens" / "batch.json"
    path.write_text(json.dumps(golden, indent=1) + "\n")
    print(f"{path.name}: {len(prompts)} prompts")


def _ask(model: nn.Module, picture: Tensor, captions: tuple[str, ...]) -> list[list[Detection]]:
    """Detections for each caption, best first; boxes are cx, cy, w, h as fractions of the picture."""
    with torch.inference_mode():
        pictures = torch.stack([picture] * len(captions))
        outputs = model(pictures, captions=[preprocess_caption(caption) for caption in captions])
    scores = outputs["pred_logits"].sigmoid().amax(-1)
    return [_detections(*pair) for pair in zip(scores, outputs["pred_boxes"], strict=True)]


def _detections(scores: Tensor, boxes: Tensor) -> list[Detection]:
    best_first = [query for query in scores.argsort(descending=True) if scores[query] > _BOX_THRESHOLD]
    return [{"score": float(scores[query]), "box": boxes[query].tolist()} for query in best_first]


if __name__ == "__main__":
    main()
