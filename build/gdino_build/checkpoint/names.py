"""Brings the names of a checkpoint to the official ones that the module has, and its floats to FP32."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from gdino_build.checkpoint.hugging_face import is_hugging_face, official_state_dict
from gdino_core.errors import CheckpointError

# torch.nn.DataParallel and DistributedDataParallel, torch.compile (which may wrap a part of the model as well).
_PREFIX = re.compile(r"^(?:module\.)+|(?:^|(?<=\.))_orig_mod\.(?:module\.)*")
# In checkpoints, and never read, with the reason.
_UNUSED = {
    r"^label_enc\.weight$": "the original reads it in training alone",
    r"^bert\.pooler\.": "the original never reads it",
    r"^bert\.embeddings\.position_ids$|\.relative_position_index$|^backbone\.0\..*\.attn_mask$": (
        "it follows from the configuration"
    ),
    r"^model\.backbone\.conv_encoder\.model\.(?:swin\.)?layernorm\.": (
        "transformers 5 creates it with its Swin, and never reads it"
    ),
}
# One box head under several names: the original registers the shared module once per layer and again in the decoder.
_SHARED_BOX_HEAD = re.compile(r"^(?:transformer\.decoder\.)?bbox_embed\.\d+\.")
_BOX_HEAD = "bbox_embed.0."


@dataclass(frozen=True, kw_only=True)
class OfficialState:
    """A checkpoint in official names.

    Attributes:
        tensors: floats in FP32.
        hugging_face: whether the names were Hugging Face's.
        prefixes: that were dropped.
        dropped: names that were dropped, with the reason.
    """

    tensors: dict[str, torch.Tensor]
    hugging_face: bool
    prefixes: frozenset[str]
    dropped: dict[str, str]


def canonical_state_dict(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names to tensors as the module wants them; see `official_state`."""
    return official_state(state).tensors


def official_state(state: Mapping[str, torch.Tensor]) -> OfficialState:
    """Drop prefixes and unused keys, translate Hugging Face's names, fold the shared box head, and make floats FP32.

    Args:
        state: names as a file has them, to tensors of any precision.

    Raises:
        CheckpointError: the box heads of the decoder layers differ, which export cannot honour; two tensors of one
            name differ; a query, key or value is missing.
    """
    prefixes = frozenset(prefix for name in state for prefix in _PREFIX.findall(name))
    plain = _unique((_PREFIX.sub("", name), tensor) for name, tensor in state.items())
    hugging_face = is_hugging_face(plain)
    if hugging_face:
        plain = official_state_dict(plain)
    dropped = {name: reason for name in plain for pattern, reason in _UNUSED.items() if re.search(pattern, name)}
    used = ((_SHARED_BOX_HEAD.sub(_BOX_HEAD, name), tensor) for name, tensor in plain.items() if name not in dropped)
    return OfficialState(tensors=_unique(used), hugging_face=hugging_face, prefixes=prefixes, dropped=dropped)


def _unique(named: Iterable[tuple[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """A dictionary with floats in FP32; what is there twice must be equal."""
    unique: dict[str, torch.Tensor] = {}
    for name, tensor in named:
        value = tensor.float() if tensor.is_floating_point() else tensor
        if name in unique and not _same(unique[name], value):
            if name.startswith(_BOX_HEAD):
                raise CheckpointError(
                    f"the box heads of the decoder layers differ in {name}",
                    fix="only checkpoints trained with dec_pred_bbox_embed_share=True can be exported",
                )
            raise CheckpointError(
                f"two tensors are named {name} when their prefixes are dropped, and they differ",
                fix="save the state dict of one model alone",
            )
        unique[name] = value
    return unique


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether all numbers are the same; NaN is NaN here, and refused as such later."""
    if (first.shape, first.dtype) != (second.shape, second.dtype):
        return False
    return torch.allclose(first, second, rtol=0, atol=0, equal_nan=True)
