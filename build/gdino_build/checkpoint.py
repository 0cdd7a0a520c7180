"""Checkpoints: read without running code, reduced to canonical official names, loaded strictly."""

import pickle
import re
from pathlib import Path

import safetensors.torch
import torch

from gdino_build.model import GroundingDino, ModelConfig
from gdino_core.errors import CheckpointError

# In official files, and never read: unused by the original at inference, or derived from the configuration.
_UNUSED = re.compile(
    r"^label_enc\.weight$|^bert\.embeddings\.position_ids$|^bert\.pooler\."
    r"|\.relative_position_index$|^backbone\.0\..*\.attn_mask$"
)
# One box head under several names: the original registers the shared module once per layer and again in the decoder.
_SHARED_BOX_HEAD = re.compile(r"^(?:transformer\.decoder\.)?bbox_embed\.\d+\.")


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a `.safetensors` or `.pth` file, on the CPU, without running any code that it may carry.

    Raises:
        CheckpointError: no such file, not a checkpoint, or a pickle that holds more than tensors.
    """
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint {path} does not exist",
            fix="name an existing file in [model] checkpoint of the profile, or pass RANDOM_WEIGHTS=1",
        )
    size = f"{path.stat().st_size:,} bytes"
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint {path} ({size}) is not one, or holds Python objects that could run code: they are refused",
            fix="download it again, or save its tensors alone: torch.save({'model': model.state_dict()}, path)",
        ) from error
    except Exception as error:  # a damaged file makes the readers fail in a dozen ways
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"checkpoint {path} ({size}) cannot be read: {reason}", fix="download it again"
        ) from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(
            f"checkpoint {path} is not a dictionary of tensors, nor holds one under 'model'",
            fix="save it with torch.save({'model': model.state_dict()}, path)",
        )
    return state


def canonical_state_dict(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Drop prefixes and unused keys, fold the shared box head's names into one, and make floats FP32.

    Raises:
        CheckpointError: the box heads of the decoder layers differ, which export cannot honour.
    """
    canonical: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        name = name.removeprefix("module.")
        if _UNUSED.search(name):
            continue
        name = _SHARED_BOX_HEAD.sub("bbox_embed.0.", name)
        if name in canonical and not torch.equal(canonical[name], tensor.to(canonical[name].dtype)):
            raise CheckpointError(
                f"the box heads of the decoder layers differ in {name}",
                fix="only checkpoints trained with dec_pred_bbox_embed_share=True can be exported",
            )
        canonical[name] = tensor.float() if tensor.is_floating_point() else tensor
    return canonical


def load_model(config: ModelConfig, state: dict[str, torch.Tensor]) -> GroundingDino:
    """Build the model and load every tensor, strictly.

    Args:
        config: sizes of the architecture.
        state: official names to tensors; see `canonical_state_dict`.

    Returns:
        The model in evaluation mode, without gradients.

    Raises:
        CheckpointError: names missing, unexpected or of another shape.
    """
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in GroundingDino(config).state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    problems = [f"missing {name} {shape}" for name, shape in wanted.items() if name not in found]
    problems += [f"unexpected {name} {shape}" for name, shape in found.items() if name not in wanted]
    problems += [
        f"{name} is {found[name]}, expected {shape}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    if problems:
        shown = "\n  ".join(problems[:10]) + (f"\n  and {len(problems) - 10} more" if len(problems) > 10 else "")
        raise CheckpointError(
            f"checkpoint does not fit architecture {config.name}:\n  {shown}",
            fix="check [model] architecture in the profile, or the file if it was cut short",
        )
    model = GroundingDino(config)
    model.load_state_dict(state, strict=True)
    return model.eval().requires_grad_(False)
