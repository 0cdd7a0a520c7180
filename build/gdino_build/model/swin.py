"""Swin Transformer backbone that does not see the padding around a picture, with the official names.

The original pads with zeros wherever a map does not fill its patches, its windows or its pairs of cells. Here the
picture lies in a larger frame, whose sides are multiples of 32: cells outside the picture are set to zero at the same
places, so every cell inside gets what the original computes from the picture alone.

Source: GroundingDINO, models/GroundingDINO/backbone/swin_transformer.py.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdino_build.model.config import SwinConfig
from gdino_build.model.geometry import inside_maps, map_lines, valid_cells

PATCH = 4  # pixels a side
_SHIFT_PENALTY = -100.0  # the original's mask between regions that the cyclic shift brought together


def relative_position_index(window: int) -> Tensor:
    """Index into the bias table for each pair of tokens of a window, int64 [window², window²]."""
    rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    place = torch.stack((rows.flatten(), columns.flatten()), dim=-1)
    offset = place[:, None] - place[None] + window - 1
    return offset[..., 0] * (2 * window - 1) + offset[..., 1]


def padded_to_windows(map_hw: tuple[int, int], window: int) -> tuple[int, int]:
    """Height and width rounded up to multiples of the window."""
    height, width = map_hw
    return height + -height % window, width + -width % window


def windows_from_map(x: Tensor, window: int, map_hw: tuple[int, int], channels: int) -> Tensor:
    """[B,H,W,C] -> [B * windows, window², C]; H and W are multiples of the window."""
    rows, columns = map_hw[0] // window, map_hw[1] // window
    x = x.view(-1, rows, window, columns, window, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, window * window, channels)


def map_from_windows(windows: Tensor, window: int, map_hw: tuple[int, int], channels: int) -> Tensor:
    """[B * windows, window², C] -> [B,H,W,C]."""
    rows, columns = map_hw[0] // window, map_hw[1] // window
    x = windows.view(-1, rows, columns, window, window, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, map_hw[0], map_hw[1], channels)


def shift_masks(map_hws: Sequence[tuple[int, int]], cells: Tensor, window: int) -> list[Tensor]:
    """Keep apart what the original keeps apart in windows that are shifted by half their size, for several maps.

    The shift is cyclic, so the last windows also hold the first rows, which must not mix with the others. In the
    original the map ends where its last window ends; here the frame goes on, and what lies beyond must not mix either.

    Args:
        map_hws: heights and widths of the frames of M maps, multiples of the window.
        cells: int [B,M,2], rows and columns of the maps that the original would have.
        window: cells a side.

    Returns:
        For each map float32 [B * windows, 1, window², window²], 0 or -100.
    """
    shift = window // 2
    lines = map_lines(map_hws, cells.device)
    ends = lines.of_axis((cells + window - 1) // window * window)  # [B,P], where the original's last windows end
    wrapped = (lines.index >= lines.length - shift).to(torch.float32)
    # Of shifted lines; 0: picture, 1: beyond it, 2: wrapped.
    regions = (lines.index >= ends - shift).to(torch.float32) + wrapped
    masks, start = [], 0
    for height, width in map_hws:
        middle, stop = start + height, start + height + width
        rows = regions[:, start:middle].view(-1, height // window, 1, window, 1)
        columns = regions[:, middle:stop].view(-1, 1, width // window, 1, window)
        places = (rows * 3 + columns).view(-1, window * window)  # [B * windows, window²]
        apart = places[:, None, None] != places[:, None, :, None]
        masks.append(apart.to(torch.float32) * _SHIFT_PENALTY)
        start = stop
    return masks


class WindowAttention(nn.Module):
    """Multi-head attention within a window, with a learned bias for each relative position."""

    relative_position_index: Tensor

    def __init__(self, dim: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.tokens = window * window
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, num_heads))
        self.register_buffer("relative_position_index", relative_position_index(window), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend within windows: x [B * windows, N, C], mask [B * windows, 1, N, N] or None."""
        heads, tokens = self.num_heads, self.tokens
        qkv = F.linear(x, *self._scaled_qkv()).view(-1, tokens, 3 * heads, self.head_dim).transpose(1, 2)
        query, key, value = torch.split(qkv, heads, dim=1)  # [B * windows, heads, N, d]
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)  # [heads, N, N]
        scores = query @ key.transpose(-1, -2) + bias
        if mask is not None:
            scores = scores + mask
        attended = (scores.softmax(-1) @ value).transpose(1, 2)
        return self.proj(attended.reshape(-1, tokens, heads * self.head_dim))

    def _scaled_qkv(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of queries, keys and values, the queries scaled."""
        dim, scale = self.proj.in_features, self.head_dim**-0.5
        weight, bias = self.qkv.weight, self.qkv.bias
        return torch.cat((weight[:dim] * scale, weight[dim:])), torch.cat((bias[:dim] * scale, bias[dim:]))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """Windowed attention, shifted by half a window in every second block, and an MLP."""

    def __init__(self, dim: int, num_heads: int, window: int, *, shifted: bool) -> None:
        super().__init__()
        self.dim, self.window = dim, window
        self.shift = window // 2 if shifted else 0
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor, map_hw: tuple[int, int], inside: Tensor, mask: Tensor) -> Tensor:
        """One block: x [B,H*W,C]; inside [B,H*W,1] is 1 in the picture and 0 beyond; mask for shifted windows."""
        height, width = map_hw
        padded_hw = padded_to_windows(map_hw, self.window)
        y = (self.norm1(x) * inside).view(-1, height, width, self.dim)
        y = F.pad(y, (0, 0, 0, padded_hw[1] - width, 0, padded_hw[0] - height))
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), dims=(1, 2))
        windows = windows_from_map(y, self.window, padded_hw, self.dim)
        windows = self.attn(windows, mask if self.shift else None)
        y = map_from_windows(windows, self.window, padded_hw, self.dim)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), dims=(1, 2))
        x = x + y[:, :height, :width].reshape(-1, height * width, self.dim)
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Halve height and width: four neighbours become one token of twice the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor, map_hw: tuple[int, int]) -> Tensor:
        """[B,H*W,C], zero beyond the picture -> [B,H/2*W/2,2C]."""
        height, width = map_hw[0] // 2, map_hw[1] // 2
        x = x.view(-1, height, 2, width, 2, self.dim).permute(0, 1, 3, 4, 2, 5)  # column before row
        return self.reduction(self.norm(x.reshape(-1, height * width, 4 * self.dim)))


class SwinStage(nn.Module):
    """Blocks at one resolution, then the step down to the next."""

    def __init__(self, dim: int, depth: int, num_heads: int, window: int, *, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SwinBlock(dim, num_heads, window, shifted=i % 2 == 1) for i in range(depth))
        self.downsample = None if last else PatchMerging(dim)

    def forward(self, x: Tensor, map_hw: tuple[int, int], inside: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map [B,H*W,C] at this resolution, and the next stage's input [B,H/2*W/2,2C] (the last: the map again)."""
        for block in self.blocks:
            x = block(x, map_hw, inside, mask)
        return x, x if self.downsample is None else self.downsample(x * inside, map_hw)


class PatchEmbed(nn.Module):
    """Non-overlapping patches of 4 x 4 pixels, projected and normalised."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Tensor, map_hw: tuple[int, int]) -> Tensor:
        """[B,3,H,W] -> [B,H/4*W/4,C]."""
        height, width = map_hw
        patches = image.view(-1, 3, height, PATCH, width, PATCH).permute(0, 2, 4, 1, 3, 5)
        patches = patches.reshape(-1, height * width, 3 * PATCH**2)
        return self.norm(F.linear(patches, self.proj.weight.flatten(1), self.proj.bias))


class SwinTransformer(nn.Module):
    """The backbone; returns the maps at strides 8, 16 and 32."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        dims, stages = config.stage_dims, len(config.depths)
        self.window = config.window_size
        self.patch_embed = PatchEmbed(dims[0])
        self.layers = nn.ModuleList(
            SwinStage(dim, depth, heads, config.window_size, last=i == stages - 1)
            for i, (dim, depth, heads) in enumerate(zip(dims, config.depths, config.num_heads, strict=True))
        )
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for dim in dims[1:])

    def forward(self, image: Tensor, valid_hw: Tensor) -> list[Tensor]:
        """Compute feature maps.

        Args:
            image: float32 [B,3,H,W], normalised, zero beyond the picture; H and W multiples of 32.
            valid_hw: int [B,2], height and width of the picture at the top left, in pixels.

        Returns:
            float32 [B,H/s*W/s,C] for strides s = 8, 16, 32, zero beyond the picture.
        """
        # Every size follows from the picture's: a layer that asked a tensor for its shape would cost an exported graph
        # a chain of small nodes. Masks of all stages are made at once for the same reason.
        strides = [PATCH << stage for stage in range(len(self.layers))]
        map_hws = [(image.shape[2] // stride, image.shape[3] // stride) for stride in strides]
        cells = valid_cells(valid_hw, strides)
        insides = [inside[..., None].to(image.dtype) for inside in inside_maps(map_hws, cells)]
        shifted = shift_masks([padded_to_windows(map_hw, self.window) for map_hw in map_hws], cells, self.window)
        maps = []
        x = self.patch_embed(image, map_hws[0])
        norms = (None, self.norm1, self.norm2, self.norm3)
        for stage, norm, map_hw, inside, mask in zip(self.layers, norms, map_hws, insides, shifted, strict=True):
            stage_map, x = stage(x, map_hw, inside, mask)
            if norm is not None:
                maps.append(norm(stage_map) * inside)
        return maps
