"""Time the original's detector on one picture, a run for each line of standard input; runs in .venv-reference.

    PYTHONPATH=build:. .venv-reference/bin/python -m tests.reference.time_original --model swint \
        --weights out/random/swint.safetensors --size 800x1216 --caption "a cat . a dog ."

Prints the number of tokens, and then for each line the seconds of a forward pass without those of BERT, which is the
text encoder here. `gdino_build.bench_engine` interleaves it with the engines.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import torch
from PIL import Image

from gdino_build.pictures import draw_picture
from tests.reference.original.images import normalise
from tests.reference.original.model import MODELS, build_original, load_weights
from tests.reference.original.text import build_tokenizer


def main() -> None:
    """Load, then run and time as often as asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--weights", type=Path, required=True, help=".safetensors of official names")
    parser.add_argument("--size", required=True, help="height x width, such as 800x1216")
    parser.add_argument("--caption", required=True)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    model = build_original(arguments.model)
    load_weights(model, arguments.weights)
    height, width = (int(side) for side in arguments.size.split("x"))
    image = normalise(Image.fromarray(draw_picture(1, height, width)))[None]
    started, text_s = 0.0, 0.0

    def start(*_: object) -> None:
        nonlocal started
        started = time.perf_counter()

    def stop(*_: object) -> None:
        nonlocal text_s
        text_s = time.perf_counter() - started

    model.bert.register_forward_pre_hook(start)
    model.bert.register_forward_hook(stop)
    print(len(build_tokenizer()(arguments.caption)["input_ids"]), flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        with torch.inference_mode():
            model(image, captions=[arguments.caption])
        print(time.perf_counter() - begun - text_s, flush=True)


if __name__ == "__main__":
    main()
