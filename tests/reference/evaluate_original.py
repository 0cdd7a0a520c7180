"""Let the original detect all labels of a COCO data set, as its COCO evaluation does; runs in .venv-reference.

    PYTHONPATH=build:. .venv-reference/bin/python -m tests.reference.evaluate_original --model demo \
        --weights demo/checkpoint.safetensors --coco annotations.json --images pictures --out out/original-demo

One picture at a time, and without padding. Writes detections.json, with the results in COCO's form, into the folder
--out. With --timed it answers one picture a line of standard input, so that gdino_build.accuracy.original can time it.
"""

import argparse
import hashlib
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from gdino_build.accuracy.answers import AnswerFile, Found
from gdino_build.accuracy.asking import answer_all, coco_results
from gdino_build.accuracy.dataset import load_coco
from gdino_build.machine import peak_bytes
from tests.reference.cases import RESIZES
from tests.reference.original import versions
from tests.reference.original.images import normalise, resize
from tests.reference.original.labels import PostProcessCocoGrounding, positive_map
from tests.reference.original.model import MODELS, build_original, load_weights
from tests.reference.original.text import MAX_TOKENS, build_tokenizer

_NUM_SELECT = 300  # of demo/test_ap_on_coco.py


def main() -> None:
    """Answer a data set, or one picture after the other as they are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--weights", type=Path, required=True, help=".safetensors of official names")
    parser.add_argument("--coco", type=Path, required=True, help="annotation file")
    parser.add_argument("--images", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder for the answers")
    parser.add_argument("--limit", type=int, help="only the first so many pictures")
    parser.add_argument("--timed", action="store_true", help="answer the pictures that standard input names")
    arguments = parser.parse_args()

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    dataset = load_coco(arguments.coco, arguments.images, arguments.limit)
    model = build_original(arguments.model)
    load_weights(model, arguments.weights)
    ask = _asking(model, list(dataset.labels), *RESIZES[arguments.model])
    if arguments.timed:
        _answer_lines(ask)
        return
    about = {
        "made_with": versions(),
        "weights_sha256": hashlib.sha256(arguments.weights.read_bytes()).hexdigest(),
        "parameter_bytes": sum(value.numel() * value.element_size() for value in model.parameters()),
    }
    header = {"original": about, "annotations_sha256": dataset.sha256, "num_select": _NUM_SELECT}
    with AnswerFile(arguments.out / "answers.jsonl", header) as answers:
        answer_all(dataset, answers, ask, title="original")
        content = {**about, "results": coco_results(dataset, answers)}
    temporary = arguments.out / "detections.partial"
    temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
    temporary.replace(arguments.out / "detections.json")


def _asking(model: nn.Module, labels: list[str], short_side: int, long_side: int) -> Callable[[bytes], Found]:
    weights, input_ids = positive_map(labels, build_tokenizer())
    if len(input_ids) > MAX_TOKENS:
        raise ValueError(
            f"the labels have {len(input_ids)} tokens, of which the original would cut all after {MAX_TOKENS}"
        )
    caption = " . ".join(labels) + " ."  # demo/test_ap_on_coco.py, main()
    queries = int(model.num_queries)  # type: ignore[arg-type]
    postprocess = PostProcessCocoGrounding(min(_NUM_SELECT, queries * len(labels)), weights)

    @torch.inference_mode()
    def ask(data: bytes) -> Found:
        with Image.open(io.BytesIO(data)) as file:
            picture = file.convert("RGB")
        outputs = model(normalise(resize(picture, short_side, long_side))[None], captions=[caption])
        image_hw = (picture.height, picture.width)
        [best] = postprocess.forward(outputs, torch.tensor([image_hw]))
        return Found(
            boxes_xyxy=best["boxes"].float().numpy(),
            scores=best["scores"].float().numpy(),
            label_index=best["labels"].numpy().astype(np.int32),
            image_hw=image_hw,
        )

    return ask


def _answer_lines(ask: Callable[[bytes], Found]) -> None:
    """Print a line when loaded, a line for each picture that is named, and the peak memory for an empty line."""
    print("loaded", flush=True)
    for line in sys.stdin:
        name = line.rstrip("\n")
        if name:
            ask(Path(name).read_bytes())
        print("answered" if name else peak_bytes(), flush=True)


if __name__ == "__main__":
    main()
