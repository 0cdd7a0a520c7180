"""Export the two graphs, text encoder and detector, to ONNX.

The exporter is torch's TorchScript-based one; docs/decisions/0001-exporter.md has the measurements behind the choice.
"""

import os
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning  # torch.jit does not declare it as its own

from gdino_build.model import Detector, GroundingDino, TextEncoder
from gdino_core import contract

OPSET = 17  # LayerNormalization is one operator from 17 on; TensorRT 10, OpenVINO and ONNX Runtime all read it
# Any size serves: nothing of it stays in the graph, which the parity gate proves at other sizes.
_TRACED_HW = (256, 320)
_TRACED_TOKENS = 16
_TRACED_BATCH = 2

TEXT_ENCODER_INPUTS = (contract.INPUT_IDS, contract.POSITION_IDS, contract.PHRASE_IDS)
TEXT_ENCODER_OUTPUTS = (contract.TEXT_FEATURES,)
DETECTOR_INPUTS = (
    contract.PIXELS,
    contract.VALID_HW,
    contract.TEXT_FEATURES,
    contract.POSITION_IDS,
    contract.PHRASE_IDS,
)
DETECTOR_OUTPUTS = (contract.LOGITS, contract.BOXES_CXCYWH)

_TOKENS = {0: "batch", 1: "tokens"}
DYNAMIC_AXES = {
    contract.INPUT_IDS: _TOKENS,
    contract.POSITION_IDS: _TOKENS,
    contract.PHRASE_IDS: _TOKENS,
    contract.TEXT_FEATURES: _TOKENS,
    contract.PIXELS: {0: "batch", 2: "height", 3: "width"},
    contract.VALID_HW: {0: "batch"},
    contract.LOGITS: {0: "batch", 2: "tokens"},
    contract.BOXES_CXCYWH: {0: "batch"},
}


def export_text_encoder(model: GroundingDino, path: Path) -> None:
    """Write the text encoder, dynamic in batch and tokens; the file appears only when it is whole."""
    ids, positions, phrases = _traced_text()
    _export(TextEncoder(model), (ids, positions, phrases), TEXT_ENCODER_INPUTS, TEXT_ENCODER_OUTPUTS, path)


def export_detector(model: GroundingDino, path: Path) -> None:
    """Write the detector, dynamic in batch, height, width (multiples of 32) and tokens."""
    height, width = _TRACED_HW
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (_TRACED_BATCH, 3, height, width), generator=generator, dtype=torch.uint8)
    valid_hw = torch.tensor([[height, width - 40], [height - 24, width]], dtype=torch.int32)
    features = torch.randn(_TRACED_BATCH, _TRACED_TOKENS, model.config.hidden_dim, generator=generator)
    _, positions, phrases = _traced_text()
    _export(
        Detector(model),
        (pixels, valid_hw, features, positions, phrases),
        DETECTOR_INPUTS,
        DETECTOR_OUTPUTS,
        path,
    )


def _traced_text() -> tuple[Tensor, Tensor, Tensor]:
    tokens = torch.arange(_TRACED_TOKENS, dtype=torch.int32).expand(_TRACED_BATCH, -1).contiguous()
    return tokens + 1000, tokens % 4, tokens // 4


def _export(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    input_names: tuple[str, ...],
    output_names: tuple[str, ...],
    path: Path,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    with warnings.catch_warnings():
        # The tracer warns of every loop over levels and of its own deprecation; the parity gate says what is true.
        warnings.filterwarnings("ignore", category=TracerWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.onnx.export(
            module,
            inputs,
            str(temporary),
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_axes={name: DYNAMIC_AXES[name] for name in (*input_names, *output_names)},
            opset_version=OPSET,
            dynamo=False,
        )
    os.replace(temporary, path)
