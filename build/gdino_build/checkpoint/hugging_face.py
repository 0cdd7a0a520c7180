"""Hugging Face's parameter names to the official ones.

Their module splits each fused query-key-value projection into three. The Swin of transformers 5 has other names than
that of 4; save_pretrained of either writes those of 4, while torch.save(model.state_dict()) writes those of the module.
The names were found by value: `tests/reference/make_hugging_face_names.py` lets transformers itself convert a
checkpoint, and tests compare this table with what it found.

Weights are all that is taken over. Hugging Face's module clamps its inverse sigmoid at 1e-5 where the original has
1e-3; ours computes as the original, so boxes near the border of a picture may differ a little from Hugging Face's.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

from gdino_core.errors import CheckpointError

_MARKS = ("model.backbone.conv_encoder.", "model.text_backbone.")
_THIRD_NAMES = ("query", "key", "value")
_THIRDS = {"query": 0, "key": 1, "value": 2, "q_proj": 0, "k_proj": 1, "v_proj": 2}


@dataclass(frozen=True, kw_only=True)
class _Subtree:
    """Names that begin alike.

    Attributes:
        begins: their beginning, a regular expression; groups are numbers of layers.
        official: what stands in its place.
        leaves: how what follows begins, and what stands in its place; what is not here stays.
        fused: paths of attentions whose query, key and value the original keeps in one tensor, to the name of that.
    """

    begins: str
    official: str
    leaves: Mapping[str, str] = field(default_factory=dict)
    fused: Mapping[str, str] = field(default_factory=dict)


_SWIN = r"model\.backbone\.conv_encoder\.model\.(?:swin\.)?"  # "swin." is in the module of transformers 5
_SUBTREES = (
    _Subtree(
        begins=_SWIN + r"encoder\.layers\.(\d+)\.blocks\.(\d+)\.",
        official=r"backbone.0.layers.\1.blocks.\2.",
        leaves={
            "layernorm_before.": "norm1.",
            "layernorm_after.": "norm2.",
            "attention.self.relative_position_": "attn.relative_position_",
            "attention.relative_position_bias.": "attn.",
            "attention.output.dense.": "attn.proj.",
            "attention.o_proj.": "attn.proj.",
            "intermediate.dense.": "mlp.fc1.",
            "output.dense.": "mlp.fc2.",
        },
        fused={"attention.self.": "attn.qkv.", "attention.": "attn.qkv."},
    ),
    _Subtree(begins=_SWIN + r"encoder\.layers\.(\d+)\.", official=r"backbone.0.layers.\1."),
    _Subtree(begins=_SWIN + r"embeddings\.patch_embeddings\.projection\.", official="backbone.0.patch_embed.proj."),
    _Subtree(begins=_SWIN + r"embeddings\.norm\.", official="backbone.0.patch_embed.norm."),
    *(  # stages are counted from 1, the original's from 0
        _Subtree(begins=_SWIN + rf"hidden_states_norms\.stage{stage + 1}\.", official=f"backbone.0.norm{stage}.")
        for stage in range(4)
    ),
    _Subtree(begins=r"model\.text_backbone\.", official="bert."),
    _Subtree(begins=r"model\.text_projection\.", official="feat_map."),
    _Subtree(begins=r"model\.input_proj_vision\.", official="input_proj."),
    _Subtree(
        begins=r"model\.encoder\.layers\.(\d+)\.deformable_layer\.",
        official=r"transformer.encoder.layers.\1.",
        leaves={
            "self_attn_layer_norm.": "norm1.",
            "fc1.": "linear1.",
            "fc2.": "linear2.",
            "final_layer_norm.": "norm2.",
        },
    ),
    _Subtree(
        begins=r"model\.encoder\.layers\.(\d+)\.text_enhancer_layer\.",
        official=r"transformer.encoder.text_layers.\1.",
        leaves={
            "layer_norm_before.": "norm1.",
            "fc1.": "linear1.",
            "fc2.": "linear2.",
            "layer_norm_after.": "norm2.",
        },
        fused={"self_attn.": "self_attn.in_proj_"},
    ),
    _Subtree(
        begins=r"model\.encoder\.layers\.(\d+)\.fusion_layer\.",
        official=r"transformer.encoder.fusion_layers.\1.",
        leaves={
            "vision_param": "gamma_v",
            "text_param": "gamma_l",
            "layer_norm_vision.": "layer_norm_v.",
            "layer_norm_text.": "layer_norm_l.",
            "attn.vision_proj.": "attn.v_proj.",
            "attn.text_proj.": "attn.l_proj.",
            "attn.values_vision_proj.": "attn.values_v_proj.",
            "attn.values_text_proj.": "attn.values_l_proj.",
            "attn.out_vision_proj.": "attn.out_v_proj.",
            "attn.out_text_proj.": "attn.out_l_proj.",
        },
    ),
    _Subtree(
        begins=r"model\.decoder\.layers\.(\d+)\.",
        official=r"transformer.decoder.layers.\1.",
        leaves={
            "self_attn_layer_norm.": "norm2.",
            "encoder_attn_text_layer_norm.": "catext_norm.",
            "encoder_attn_text.": "ca_text.",
            "encoder_attn_layer_norm.": "norm1.",
            "encoder_attn.": "cross_attn.",
            "fc1.": "linear1.",
            "fc2.": "linear2.",
            "final_layer_norm.": "norm3.",
        },
        fused={"self_attn.": "self_attn.in_proj_", "encoder_attn_text.": "ca_text.in_proj_"},
    ),
    _Subtree(begins=r"model\.decoder\.layer_norm\.", official="transformer.decoder.norm."),
    _Subtree(begins=r"model\.decoder\.reference_points_head\.", official="transformer.decoder.ref_point_head."),
    _Subtree(begins=r"model\.decoder\.bbox_embed\.", official="transformer.decoder.bbox_embed."),
    _Subtree(begins=r"model\.query_position_embeddings\.", official="transformer.tgt_embed."),
    _Subtree(begins=r"model\.encoder_output_bbox_embed\.", official="transformer.enc_out_bbox_embed."),
    _Subtree(begins=r"model\.(enc_output|enc_output_norm)\.", official=r"transformer.\1."),
    _Subtree(begins=r"model\.level_embed$", official="transformer.level_embed"),
)


def is_hugging_face(names: Iterable[str]) -> bool:
    """Whether a checkpoint has Hugging Face's names."""
    return any(name.startswith(_MARKS) for name in names)


def official_name(name: str) -> tuple[str, int | None]:
    """Translate one name.

    Returns:
        The official name, and which third of that tensor this is: 0 query, 1 key, 2 value, None all of it. A name
        that is not Hugging Face's comes back as it is.
    """
    for subtree in _SUBTREES:
        if not (match := re.match(subtree.begins, name)):
            continue
        official, rest = match.expand(subtree.official), name[match.end() :]
        for path, fused in subtree.fused.items():
            projection, _, parameter = rest.removeprefix(path).partition(".")
            if rest.startswith(path) and projection in _THIRDS:
                return official + fused + parameter, _THIRDS[projection]
        for leaf, renamed in subtree.leaves.items():
            if rest.startswith(leaf):
                return official + renamed + rest[len(leaf) :], None
        return official + rest, None
    return name, None


def official_state_dict(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Translate the names of a state dict, and join queries, keys and values.

    Raises:
        CheckpointError: parts of a fused tensor are missing, or do not fit together.
    """
    official: dict[str, torch.Tensor] = {}
    parts: defaultdict[str, dict[int, torch.Tensor]] = defaultdict(dict)
    for name, tensor in state.items():
        translated, third = official_name(name)
        if third is None:
            official[translated] = tensor
        else:
            parts[translated][third] = tensor
    for name, thirds in parts.items():
        shapes = {_THIRD_NAMES[third]: tuple(tensor.shape) for third, tensor in sorted(thirds.items())}
        if len(shapes) != 3 or len(set(shapes.values())) != 1:
            raise CheckpointError(
                f"{name} takes a query, a key and a value of one shape, and the checkpoint has {shapes}",
                fix="name the folder if the checkpoint is in several files, or save it again with save_pretrained",
            )
        official[name] = torch.cat([thirds[third] for third in range(3)])
    return official
