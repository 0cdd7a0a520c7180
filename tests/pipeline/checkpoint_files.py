"""Saves one model as each kind of file that people have: for the tests, and to try README's "Your own checkpoint".

.venv/bin/python -m tests.pipeline.checkpoint_files out/formats
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from gdino_build.checkpoint import canonical_state_dict, read_state_dict

ROOT = Path(__file__).parents[2]
# Hugging Face's name of a tensor: the official name, or `name[0]` for its first third, and the files that have it.
HUGGING_FACE_NAMES: dict[str, list[str]] = json.loads(
    (ROOT / "tests" / "goldens" / "hugging_face_names.json").read_text(encoding="utf-8")
)
HUGGING_FACE_FILES = sorted({file for _, *files in HUGGING_FACE_NAMES.values() for file in files})
_DECODER_LAYERS = 3  # of the demo


def original_state(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All that the original's state dict has: the box head once per layer and again in the decoder, BERT's pooler."""
    state = dict(official)
    for name, value in official.items():
        if name.startswith("bbox_embed.0."):
            for layer in range(_DECODER_LAYERS):
                layered = name.replace(".0.", f".{layer}.", 1)
                state[layered] = state[f"transformer.decoder.{layered}"] = value
    state["bert.pooler.dense.bias"] = torch.zeros(64)
    state["backbone.0.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.long)
    return state


def save_official(official: Mapping[str, Tensor], path: Path) -> None:
    """As IDEA published: names of a model in DistributedDataParallel, and two tensors that nothing reads."""
    extra = {"label_enc.weight": torch.zeros(2001, 128), "bert.embeddings.position_ids": torch.arange(512)[None]}
    state = {f"module.{name}": value for name, value in (original_state(official) | extra).items()}
    torch.save({"model": state}, path)


def save_open_groundingdino(official: Mapping[str, Tensor], path: Path) -> None:
    """As Open-GroundingDino's main.py: arguments, optimizer and schedule beside the weights."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter], lr=1e-4)
    parameter.sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[4, 8])
    torch.save(
        {
            "model": original_state(official),
            "optimizer": optimizer.state_dict(),
            "lr_scheduler": schedule.state_dict(),
            "epoch": 14,
            "args": argparse.Namespace(config_file="config/cfg_odvg.py", lr=1e-4, lr_drop_list=[4, 8], options=None),
        },
        path,
    )


def hugging_face_state(official: Mapping[str, Tensor], file: str) -> dict[str, Tensor]:
    """Official tensors under Hugging Face's names; `file` is one of HUGGING_FACE_FILES."""
    state = {}
    for name, (source, *files) in HUGGING_FACE_NAMES.items():
        if file in files:
            whole, _, third = (source or "").partition("[")
            value = official.get(whole, torch.zeros(1))  # an index, or a norm that nothing reads
            state[name] = (value.chunk(3)[int(third[0])] if third else value).clone()
    return state


def save_hugging_face(official: Mapping[str, Tensor], folder: Path, file: str) -> None:
    """As save_pretrained or torch.save of one transformers version writes it into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    state = hugging_face_state(official, file)
    if file.endswith("save_pretrained"):
        safetensors.torch.save_file(state, folder / "model.safetensors", {"format": "pt"})
    else:
        torch.save(state, folder / "pytorch_model.bin")


def save_all(official: Mapping[str, Tensor], folder: Path) -> list[Path]:
    """Save a model as each kind of file; the paths that a profile's `checkpoint` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    save_official(official, folder / "official.pth")
    save_open_groundingdino(official, folder / "open_groundingdino.pth")
    safetensors.torch.save_file(dict(official), folder / "official.safetensors")
    paths = [folder / name for name in ("official.pth", "open_groundingdino.pth", "official.safetensors")]
    for file in HUGGING_FACE_FILES:
        paths.append(folder / f"hugging_face {file}".replace(" ", "_"))
        save_hugging_face(official, paths[-1], file)
    return paths


def main() -> None:
    """Save the demo checkpoint as each kind of file, with a profile for each."""
    folder = Path(sys.argv[1])
    profile = (ROOT / "build" / "gdino_build" / "profiles" / "demo-cpu.toml").read_text(encoding="utf-8")
    for path in save_all(canonical_state_dict(read_state_dict(ROOT / "demo" / "checkpoint.safetensors")), folder):
        own = folder / f"{path.name.replace('.', '_')}.toml"
        own.write_text(profile.replace("demo/checkpoint.safetensors", path.as_posix()), encoding="utf-8")
        print(f"make doctor-checkpoint FILE={path}; make serve PROFILE={own}")


if __name__ == "__main__":
    main()
