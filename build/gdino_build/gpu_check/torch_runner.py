"""Run the inference module in PyTorch, on a GPU or on a CPU."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from gdino_build.checkpoint import load_model
from gdino_build.export import DETECTOR_INPUTS, TEXT_ENCODER_INPUTS
from gdino_build.model import ModelConfig
from gdino_build.parity import PROPOSAL_SCORES, PROPOSALS, Arrays
from gdino_core import contract

_TYPES = {"fp32": torch.float32, "fp16": torch.float16}


class TorchRunner:
    """See `Runner`. FP16 is torch.autocast, which leaves to FP32 what PyTorch thinks needs it."""

    can_force = True

    def __init__(self, architecture: ModelConfig, weights: Path, precision: str, device: str) -> None:
        """Load a .safetensors file of official names."""
        torch.backends.cudnn.allow_tf32 = False  # on by default, for convolutions: FP32 would have 10 bits
        self.version = str(torch.__version__)
        self._type, self._device = _TYPES[precision], device
        self._model = load_model(architecture, load_file(weights)).to(device)

    def place(self, inputs: Arrays) -> dict[str, Tensor]:
        """Copy what the module takes to the device."""
        wanted = {*TEXT_ENCODER_INPUTS, *DETECTOR_INPUTS, PROPOSALS} & set(inputs)
        return {name: torch.from_numpy(inputs[name]).to(self._device) for name in sorted(wanted)}

    def run(self, placed: dict[str, Tensor]) -> dict[str, Tensor]:
        """One pass."""
        enabled = self._type != torch.float32
        with torch.inference_mode(), torch.autocast(self._device, self._type, enabled=enabled):
            outputs = self._forced(placed) if PROPOSALS in placed else self._free(placed)
        if self._device == "cuda":
            torch.cuda.synchronize()
        return outputs

    def fetch(self, outputs: dict[str, Tensor]) -> Arrays:
        """Copy the outputs as float32."""
        return {name: value.float().cpu().numpy() for name, value in outputs.items()}

    def _free(self, placed: dict[str, Tensor]) -> dict[str, Tensor]:
        logits, boxes = self._model.detect(*self._detector_inputs(placed))
        return {contract.LOGITS: logits, contract.BOXES_CXCYWH: boxes}

    def _forced(self, placed: dict[str, Tensor]) -> dict[str, Tensor]:
        transformer = self._model.transformer
        encoded = self._model.encode(*self._detector_inputs(placed))
        candidates, anchors = transformer.candidates(encoded.memory, encoded.geometry)
        chosen = transformer.boxes_of(placed[PROPOSALS], candidates, anchors)
        logits, boxes = self._model.decode(encoded, chosen)[-1]
        scores = transformer.proposal_scores(candidates, encoded.text, encoded.geometry)
        return {contract.LOGITS: logits, contract.BOXES_CXCYWH: boxes, PROPOSAL_SCORES: scores}

    def _detector_inputs(self, placed: dict[str, Tensor]) -> list[Tensor]:
        features = self._model.encode_text(*(placed[name] for name in TEXT_ENCODER_INPUTS))
        return [{**placed, contract.TEXT_FEATURES: features}[name] for name in DETECTOR_INPUTS]
