"""Run the original as one of the runners of `gdino-build gpu-check`, which starts it; runs in .venv-reference.

    PYTHONPATH=build:. .venv-reference/bin/python -m tests.reference.time_original_gpu --model swint \
        --weights out/gpu-check/weights.safetensors --device cuda --precision fp16

FP16 is torch.autocast: its code cannot be turned into FP16 as a whole. The package on PyPI samples deformable attention
in PyTorch; the CUDA kernel, which the original's repository compiles, is not in it.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gdino_build.gpu_check.runner import CAPTION, DEVICES
from gdino_build.gpu_check.worker import serve
from gdino_build.parity import Arrays
from gdino_core.contract import BOXES_CXCYWH, LOGITS, PHRASE_IDS, PIXELS, VALID_HW
from tests.reference.original import versions
from tests.reference.original.images import normalise
from tests.reference.original.model import MODELS, build_original, load_weights
from tests.reference.original.text import preprocess_caption

_TYPES = {"fp32": torch.float32, "fp16": torch.float16}


class OriginalRunner:
    """See `gdino_build.gpu_check.runner.Runner`. It sees each picture without its frame, and tokenises in each pass."""

    can_force = False

    def __init__(self, model: str, weights: Path, device: str, precision: str) -> None:
        torch.backends.cudnn.allow_tf32 = False  # on by default, for convolutions: FP32 would have 10 bits
        self.version = versions().partition(",")[0]
        self._device, self._type = device, _TYPES[precision]
        self._model = build_original(model)
        load_weights(self._model, weights)
        self._model.to(device)

    def place(self, inputs: Arrays) -> tuple[Tensor, list[str], int]:
        """Normalise the pictures, which must be of one size, and copy them to the device."""
        [(height, width)] = np.unique(inputs[VALID_HW], axis=0)
        pictures = inputs[PIXELS][:, :, :height, :width].transpose(0, 2, 3, 1)
        images = torch.stack([normalise(Image.fromarray(picture)) for picture in pictures])
        captions = [preprocess_caption(str(caption)) for caption in inputs[CAPTION]]
        return images.to(self._device), captions, inputs[PHRASE_IDS].shape[1]

    def run(self, placed: tuple[Tensor, list[str], int]) -> dict[str, Tensor]:
        """One pass."""
        images, captions, tokens = placed
        enabled = self._type != torch.float32
        with torch.inference_mode(), torch.autocast(self._device, self._type, enabled=enabled):
            outputs = self._model(images, captions=captions)
        if self._device == "cuda":
            torch.cuda.synchronize()
        return {LOGITS: outputs["pred_logits"][..., :tokens], BOXES_CXCYWH: outputs["pred_boxes"]}

    def fetch(self, outputs: dict[str, Tensor]) -> Arrays:
        """Copy the outputs as float32."""
        return {name: value.float().cpu().numpy() for name, value in outputs.items()}


def main() -> None:
    """Load, then answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--weights", type=Path, required=True, help=".safetensors of official names")
    parser.add_argument("--device", choices=DEVICES, required=True)
    parser.add_argument("--precision", choices=_TYPES, required=True)
    arguments = parser.parse_args()
    serve(lambda: OriginalRunner(arguments.model, arguments.weights, arguments.device, arguments.precision))


if __name__ == "__main__":
    main()
