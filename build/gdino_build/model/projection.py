"""From a feature map to the transformer's width, with the official names.

Source: GroundingDINO, models/GroundingDINO/groundingdino.py, input_proj.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_NORM_GROUPS = 32
_NORM_EPS = 1e-5


class PictureGroupNorm(nn.Module):
    """GroupNorm with the mean and variance of the picture alone, not of the frame around it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.group_size = dim // _NORM_GROUPS

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """Normalise tokens x [B,S,C]; inside float32 [B,S,1] is 1 in the picture and 0 beyond."""
        # Sums over the cells come first: what is left to do for the groups is small.
        count = inside.sum(1) * self.group_size
        mean = self._of_groups((x * inside).sum(1)) / count  # [B,groups]
        centred = (x - self._to_channels(mean)) * inside
        variance = self._of_groups(centred.square().sum(1)) / count
        return centred * (self._to_channels((variance + _NORM_EPS).rsqrt()) * self.weight) + self.bias

    def _of_groups(self, channels: Tensor) -> Tensor:
        """Sums of the channels of each group, [B,C] -> [B,groups]."""
        return channels.view(-1, _NORM_GROUPS, self.group_size).sum(-1)

    def _to_channels(self, groups: Tensor) -> Tensor:
        """A number for each group, given to its channels, [B,groups] -> [B,1,C]."""
        return groups[..., None].expand(-1, -1, self.group_size).reshape(-1, 1, _NORM_GROUPS * self.group_size)


class LevelProjection(nn.ModuleList):
    """A convolution and a norm; being a list gives them their official names, 0 and 1."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__([convolution, PictureGroupNorm(convolution.out_channels)])

    def forward(self, x: Tensor, map_hw: tuple[int, int], inside: Tensor) -> Tensor:
        """Project the tokens x [B,H*W,C] of a map; inside as in `PictureGroupNorm`, of the projected tokens."""
        convolution, norm = cast("tuple[nn.Conv2d, PictureGroupNorm]", tuple(self))
        if convolution.kernel_size == (1, 1):
            projected = F.linear(x, convolution.weight.flatten(1), convolution.bias)
        else:
            mapped = x.transpose(1, 2).view(-1, convolution.in_channels, *map_hw)
            projected = convolution(mapped).flatten(2).transpose(1, 2)
        normalised: Tensor = norm(projected, inside)
        return normalised
