"""From a feature map to the transformer's width, with the official names.

Source: GroundingDINO, models/GroundingDINO/groundingdino.py, input_proj.
"""

import torch
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
        """Normalise x [B,C,H,W]; inside float32 [B,1,H,W] is 1 in the picture and 0 beyond."""
        grouped = x.view(-1, _NORM_GROUPS, self.group_size, x.shape[2], x.shape[3])
        inside = inside[:, None]
        # A number for each group is worked out as [B,groups] and then given axes: with them from the start, OpenVINO
        # works it out anew for each cell.
        count = inside.sum((1, 2, 3, 4))[:, None] * self.group_size
        mean = (grouped * inside).sum((2, 3, 4)) / count
        centred = (grouped - mean[:, :, None, None, None]) * inside
        variance = centred.square().sum((2, 3, 4)) / count
        scale = (variance + _NORM_EPS).rsqrt()[:, :, None] * self.weight.view(_NORM_GROUPS, self.group_size)
        return centred.view_as(x) * scale.flatten(1)[:, :, None, None] + self.bias[:, None, None]


class LevelProjection(nn.ModuleList):
    """A convolution and a norm; being a list gives them their official names, 0 and 1."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__([convolution, PictureGroupNorm(convolution.out_channels)])

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """Project x [B,C,H,W]; inside as in `PictureGroupNorm`."""
        convolution, norm = self
        return norm(convolution(x), inside)
