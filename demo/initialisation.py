"""Initial weights for training GroundingDINO from nothing."""

import math

import torch
from torch import Tensor, nn

from gdino_build.model import GroundingDino

BACKBONE_STD = 0.02
PADDING_BIAS_STD = 0.1
# Contrastive logits are dot products with layer-normed text, so they start with a standard deviation of
# sqrt(width). Smaller text makes them small, and saves the hundreds of steps it takes to unlearn them.
LAST_TEXT_NORM_SCALE = 0.1
# Nearly every query and token is background. The logits have no bias that could say so, but a constant in the
# text's norm times one of opposite sign in the queries' norms is one; what else a norm puts out sums to zero.
BACKGROUND_LOGIT = -4.0
# The original's 1e-4 suits two pretrained halves; from nothing it keeps them apart for hundreds of steps.
FUSION_SCALE = 0.05


def initialise(model: GroundingDino, seed: int) -> None:
    """Set every parameter in place, as the original does before it loads pretrained halves.

    Args:
        model: the model; float32.
        seed: the same one gives the same weights; torch's own generator is left as it was.

    Source: GroundingDINO, models/GroundingDINO/{groundingdino,transformer,ms_deform_attn}.py; Swin; BERT.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, parameter in model.named_parameters():
            _initialise_parameter(name, parameter)
        levels = len(model.transformer.level_embed)
        for name, module in model.named_modules():
            if name.endswith(".sampling_offsets"):
                _point_outwards(module, model.config.num_heads, levels, model.config.num_points)
            elif name.endswith(".attention_weights"):
                _zero(module)
            elif "bbox_embed" in name and hasattr(module, "layers"):
                _zero(module.layers[-1])
        _start_with_few_objects(model)


def _initialise_parameter(name: str, parameter: Tensor) -> None:
    """Choose by name; `initialise` sets the few parameters that need more than their name afterwards."""
    if name.endswith((".gamma_v", ".gamma_l")):
        nn.init.constant_(parameter, FUSION_SCALE)
    elif name.endswith(("patch_embed.proj.bias", "enc_output.bias")):
        # Padding reaches these as zeros. With a zero bias the norm behind sees zeros only, and multiplies the
        # gradient by 1 / sqrt(eps), norm after norm: the first gradient had a length of 5e18.
        nn.init.normal_(parameter, std=PADDING_BIAS_STD)
    elif parameter.dim() == 1:
        # Weights of one dimension belong to norms, everything else of one dimension is a bias.
        nn.init.constant_(parameter, 1.0 if name.endswith("weight") else 0.0)
    elif name.startswith(("backbone.", "bert.")):
        nn.init.trunc_normal_(parameter, std=BACKBONE_STD)
    elif name.endswith(("level_embed", "tgt_embed.weight")):
        nn.init.normal_(parameter)
    else:
        nn.init.xavier_uniform_(parameter)


def _point_outwards(offsets: nn.Module, heads: int, levels: int, points: int) -> None:
    """Let each head look in a direction of its own, each point one step further, whatever the query."""
    weight, bias = offsets.get_parameter("weight"), offsets.get_parameter("bias")
    angles = torch.arange(heads) * (2 * math.pi / heads)
    directions = torch.stack((angles.cos(), angles.sin()), dim=1)  # [heads,2]
    directions = directions / directions.abs().amax(dim=1, keepdim=True)
    steps = torch.arange(1, points + 1).view(1, 1, points, 1)
    grid = directions.view(heads, 1, 1, 2) * steps.expand(1, levels, points, 1)
    weight.zero_()
    bias.copy_(grid.reshape(-1))


def _start_with_few_objects(model: GroundingDino) -> None:
    """Make contrastive logits start near BACKGROUND_LOGIT, a few tenths to either side."""
    transformer = model.transformer
    constant = math.sqrt(-BACKGROUND_LOGIT / model.config.hidden_dim)
    text_norm = transformer.encoder.text_layers[-1].get_submodule("norm2")
    text_norm.get_parameter("weight").mul_(LAST_TEXT_NORM_SCALE)
    text_norm.get_parameter("bias").fill_(constant)
    transformer.enc_output_norm.bias.fill_(-constant)
    transformer.decoder.norm.bias.fill_(-constant)


def _zero(linear: nn.Module) -> None:
    linear.get_parameter("weight").zero_()
    linear.get_parameter("bias").zero_()
