"""Reads the tensors of a checkpoint without running any code that it may carry."""

import argparse
import json
import pickle
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from gdino_build.checkpoint.formats import Format, described, file_format
from gdino_core.errors import CheckpointError

# What Hugging Face's save_pretrained writes, the newer format first; an index names the parts of a large model.
_FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Where the tensors are when the file also holds what training needs to go on; the second name is mmengine's, the
# others are of averaged weights saved alone.
_WEIGHTS_KEYS = ("model", "state_dict", "model_ema", "ema_model")
_SAVE_ALONE = "save its tensors alone: torch.save({'model': model.state_dict()}, path)"
# Open-GroundingDino saves the arguments of its training program beside the weights: a class without code of its own.
_HARMLESS = argparse.Namespace


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """A checkpoint as it is on disk.

    Attributes:
        files: that it was read from: one, or the parts that Hugging Face divides a large model into.
        format: told by the content.
        state: names as the files have them, to tensors on the CPU.
        beside: what is there beside them, such as the epoch and the optimizer's state.
    """

    files: tuple[Path, ...]
    format: Format
    state: dict[str, torch.Tensor]
    beside: dict[str, object]


def weights_file(path: Path) -> Path:
    """Find the file: `path` itself or, in a folder of Hugging Face's save_pretrained, its weights or their index.

    Raises:
        CheckpointError: there is none.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(
            f"checkpoint {path} does not exist",
            fix="name an existing file in [model] checkpoint of the profile, or pass RANDOM_WEIGHTS=1",
        )
    for name in _FOLDER_FILES:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(
        f"folder {path} holds no {' and no '.join(_FOLDER_FILES)}", fix="name the checkpoint file itself"
    )


def weights_files(path: Path) -> tuple[Path, ...]:
    """Find the file as `weights_file` does or, where that is an index, all parts that it names.

    Raises:
        CheckpointError: there is none, or a part of it is not there.
    """
    file = weights_file(path)
    if not file.name.endswith(".index.json"):
        return (file,)
    try:
        names = sorted(set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values()))
        parts = tuple(file.with_name(Path(name).name) for name in names)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} is no index of Hugging Face's: {error!r}", fix="download it again") from error
    for part in parts:
        if not part.is_file():
            raise CheckpointError(f"{file} names {part.name}, which is not beside it", fix="download that as well")
    return parts


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors alone; see `read_checkpoint`."""
    return read_checkpoint(path).state


def read_checkpoint(path: Path) -> CheckpointFile:
    """Read a `.pth`, `.bin` or `.safetensors` file, or a folder of Hugging Face's, without running code.

    Raises:
        CheckpointError: no such file, not a checkpoint, cut short, or a pickle that holds more than tensors and what
            training is known to save beside them.
    """
    files = weights_files(path)
    state: dict[str, torch.Tensor] = {}
    beside: dict[str, object] = {}
    for file in files:
        tensors, others = _split(file, _load(file))
        state |= tensors
        beside |= others
    return CheckpointFile(files=files, format=file_format(files[0]), state=state, beside=beside)


def _load(path: Path) -> object:
    kind = file_format(path)
    try:
        if kind == "safetensors":
            return safetensors.torch.load_file(path)
        # torch warns of what it then refuses; the error says it better.
        with torch.serialization.safe_globals([_HARMLESS]), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        forbidden = re.search(r"\bGLOBAL (\S+)", str(error))
        reason = f"it could run code when it is read ({forbidden[1]})" if forbidden else "it is no pickle of tensors"
        raise CheckpointError(
            f"{described(path)} is refused, and nothing of it has run: {reason}",
            fix=f"download it again from where you trust it, or {_SAVE_ALONE}",
        ) from error
    except Exception as error:  # a damaged file makes the readers fail in a dozen ways
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if "TorchScript" in reason:
            reason = "it is a TorchScript program, not a checkpoint"
        raise CheckpointError(
            f"{described(path)} cannot be read: {reason}", fix=f"download it again, or {_SAVE_ALONE}"
        ) from error


def _split(path: Path, content: object) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Part the tensors from what is beside them."""
    fix = "save it with torch.save({'model': model.state_dict()}, path)"
    state, beside = content, {}
    if isinstance(content, dict):
        key = next((key for key in _WEIGHTS_KEYS if isinstance(content.get(key), dict)), None)
        if key is not None:
            state = content[key]
            beside = {str(name): value for name, value in content.items() if name != key}
    if not isinstance(state, dict) or not any(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(
            f"checkpoint {path} is not a dictionary of tensors, nor holds one under "
            f"{' or '.join(map(repr, _WEIGHTS_KEYS))}",
            fix=fix,
        )
    others = [
        f"{name} ({type(value).__name__})" for name, value in state.items() if not isinstance(value, torch.Tensor)
    ]
    if others:
        raise CheckpointError(f"checkpoint {path} holds among its tensors what is none: {', '.join(others)}", fix=fix)
    for name, tensor in state.items():
        if tensor.numel() * tensor.element_size() > path.stat().st_size:  # one number can pose as a million
            raise CheckpointError(
                f"{described(path)} is damaged or forged: {name} of {tuple(tensor.shape)} is larger than the file",
                fix=fix,
            )
    return {str(name): tensor for name, tensor in state.items()}, beside
