"""List what transformers calls each official tensor, found by value; runs beside the transformers in question.

Official random weights go through the converter that transformers published with GroundingDINO, into the model of the
installed version, which saves them again. A saved tensor is named after the official one, or the third of one, that
has its numbers. Before that, the model must answer a picture as the original does: the names are then right for what
it computes, not only for what the converter says.

The converter was never in the package of transformers 5, so it is read from the wheel of 4.40.2:

    python3.11 -m venv out/transformers-5
    out/transformers-5/bin/pip install torch==2.13.0 transformers==5.23.0 pillow
    out/transformers-5/bin/pip download --no-deps --dest out/transformers-5 transformers==4.40.2
    .venv/bin/gdino-build save-random --profile demo-cpu out/random/demo.safetensors
    PYTHONPATH=build out/transformers-5/bin/python -m tests.reference.make_hugging_face_names \\
        --converter out/transformers-5/transformers-4.40.2-py3-none-any.whl

It adds to tests/goldens/hugging_face_names.json what the installed version says, and keeps what others said.
"""

import argparse
import json
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock, patch

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection, SwinConfig

from gdino_build.golden import load_golden

_GOLDENS = Path(__file__).parents[1] / "goldens"
_OUT = _GOLDENS / "hugging_face_names.json"
_CONVERTER = "transformers/models/grounding_dino/convert_grounding_dino_to_hf.py"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TOLERANCE = 1e-4  # logits and boxes
_EPS = 1e-3  # of the original's inverse sigmoid; transformers has 1e-5
# It follows from the window size; transformers 5 creates a norm with its Swin that GroundingDINO never calls.
_NEVER_MISSED = (".relative_position_index", ".model.swin.layernorm.weight", ".model.swin.layernorm.bias")
_DECODER_LAYERS = 3
# The demo's sizes, for which the original's answers to these weights are in demo_random.npz.
_CONFIG = GroundingDinoConfig(
    backbone_config=SwinConfig(
        embed_dim=32,
        depths=[1, 1, 2, 1],
        num_heads=[1, 2, 4, 8],
        window_size=7,
        out_features=["stage2", "stage3", "stage4"],
    ),
    text_config=BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256),
    d_model=128,
    encoder_layers=2,
    encoder_attention_heads=4,
    encoder_ffn_dim=256,
    decoder_layers=_DECODER_LAYERS,
    decoder_attention_heads=4,
    decoder_ffn_dim=256,
    num_queries=60,
)


def main() -> None:
    """Add one version to tests/goldens/hugging_face_names.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--converter", type=Path, required=True, help="wheel of transformers 4.40.2")
    parser.add_argument(
        "--weights", type=Path, default=Path("out/random/demo.safetensors"), help="official, demo-sized"
    )
    arguments = parser.parse_args()

    official = load_file(arguments.weights)
    with tempfile.TemporaryDirectory() as folder:
        model = load_converted(convert(arguments.converter, official), Path(folder))
        difference = difference_from_original(model)
        model.save_pretrained(folder)
        saved = load_file(Path(folder) / "model.safetensors")
    version = transformers.__version__
    print(f"transformers {version} and the original differ by {difference:.1e}")
    files = {
        f"{version} save_pretrained": names_by_value(saved, official),
        f"{version} state_dict": names_by_value(model.state_dict(), official),
    }
    golden = json.loads(_OUT.read_text(encoding="utf-8")) if _OUT.is_file() else {}
    rows = [f"{json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(merge(golden, files).items())]
    _OUT.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
    print(f"{_OUT}: {', '.join(f'{len(names)} of {file}' for file, names in files.items())}")


def merge(golden: dict[str, Any], files: Mapping[str, Mapping[str, str | None]]) -> dict[str, Any]:
    """The golden with the names of some files made new: each name once, with the official one and its files."""
    found: defaultdict[tuple[str, str | None], set[str]] = defaultdict(set)
    for name, (official, *others) in golden.items():
        found[name, official].update(file for file in others if file not in files)
    for file, names in files.items():
        for name, official in names.items():
            found[name, official].add(file)
    kept = [(name, official, sorted(holders)) for (name, official), holders in found.items() if holders]
    if len({name for name, _, _ in kept}) < len(kept):
        raise ValueError("a name stands for other tensors in another version")
    return {name: [official, *holders] for name, official, holders in kept}


def convert(wheel: Path, official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Let transformers' own converter rename and split an official state dict."""
    converter = ModuleType("converter")
    with zipfile.ZipFile(wheel) as files, patch.dict(sys.modules, requests=MagicMock(), torchvision=MagicMock()):
        exec(compile(files.read(_CONVERTER), _CONVERTER, "exec"), converter.__dict__)
    state = dict(official)
    for name, value in official.items():
        if name.startswith("bbox_embed.0."):  # the original registers the one head in every layer, and in the decoder
            for layer in range(_DECODER_LAYERS):
                layered = name.replace(".0.", f".{layer}.", 1)
                state[layered] = state[f"transformer.decoder.{layered}"] = value
    for old, new in converter.create_rename_keys(state, _CONFIG):
        converter.rename_key(state, old, new)
    converter.read_in_q_k_v_encoder(state, _CONFIG)
    converter.read_in_q_k_v_text_enhancer(state, _CONFIG)
    converter.read_in_q_k_v_decoder(state, _CONFIG)
    return state


def load_converted(state: Mapping[str, Tensor], folder: Path) -> GroundingDinoForObjectDetection:
    """Load converted tensors with from_pretrained; nothing that answers may be missing."""
    _CONFIG.save_pretrained(folder)
    save_file({name: value.clone() for name, value in state.items()}, folder / "model.safetensors", {"format": "pt"})
    model, info = GroundingDinoForObjectDetection.from_pretrained(folder, output_loading_info=True)
    missing = [name for name in info["missing_keys"] if not name.endswith(_NEVER_MISSED)]
    if missing or info["unexpected_keys"] or info["mismatched_keys"]:
        raise ValueError(f"the converted weights do not load: missing {missing}, {info}")
    return model.eval()


def difference_from_original(model: GroundingDinoForObjectDetection) -> float:
    """Ask for the first case of the original's answers; the largest difference in logits and boxes.

    Raises:
        ValueError: it is above the tolerance.
    """
    case, answer = load_golden(_GOLDENS / "demo_random.npz").cases[0]
    pixels = (case.picture() / np.float32(255) - np.float32(_MEAN)) / np.float32(_STD)
    ids = torch.from_numpy(answer.input_ids)[None].long()
    with torch.no_grad(), patch("torch.special.logit", _inverse_sigmoid):
        found = model(
            pixel_values=torch.from_numpy(pixels).permute(2, 0, 1)[None],
            pixel_mask=torch.ones(1, *case.picture_hw, dtype=torch.long),
            input_ids=ids,
            token_type_ids=torch.zeros_like(ids),
            attention_mask=torch.ones_like(ids),
        )
    logits = found.logits[0, answer.queries][:, : ids.shape[1]].numpy()
    boxes = found.pred_boxes[0, answer.queries].numpy()
    difference = max(float(abs(logits - answer.logits).max()), float(abs(boxes - answer.boxes).max()))
    if not difference < _TOLERANCE:
        raise ValueError(f"transformers {transformers.__version__} differs from the original by {difference:.1e}")
    return difference


def _inverse_sigmoid(x: Tensor, eps: float) -> Tensor:
    """The original's, in place of transformers' with its smaller eps."""
    return torch.log(x.clamp(min=_EPS) / (1 - x).clamp(min=_EPS))


def names_by_value(state: Mapping[str, Tensor], official: Mapping[str, Tensor]) -> dict[str, str | None]:
    """The official name of each tensor, or `name[0]` for the first third of one, or None if none has its numbers."""
    known = {_key(value): name for name, value in official.items()}
    for name, value in official.items():
        if "qkv" in name or "in_proj" in name:
            known |= {_key(third): f"{name}[{index}]" for index, third in enumerate(value.chunk(3))}
    if len(known) < len(official):
        raise ValueError("two official tensors have the same numbers: they cannot be told apart")
    return {name: known.get(_key(value)) for name, value in state.items()}


def _key(value: Tensor) -> tuple[object, bytes]:
    return value.shape, value.contiguous().numpy().tobytes()


if __name__ == "__main__":
    main()
