"""Masks, position embeddings and anchors of a picture in a larger frame, in closed form.

The picture lies at the top left of its frame, and the rest is padding that must not show: what is inside the picture
gets what the original computes from the picture alone. All of it follows from the number of rows and columns that each
level of the picture has.

Source: GroundingDINO, models/GroundingDINO/transformer.py, utils.py and backbone/position_encoding.py.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MASKED = -1e4  # finite, representable in FP16, and far enough below any score that softmax and sigmoid give 0
_IMAGE_TEMPERATURE = 20.0  # pe_temperatureH and pe_temperatureW of both official configurations
_BOX_TEMPERATURE = 10000.0
_ANCHOR_SIDE = 0.05  # of the picture, at the finest level; doubles from level to level


def additive_mask(allowed: Tensor) -> Tensor:
    """Turn a boolean mask (True: look) into 0 and MASKED, to be added to scores before a softmax."""
    return (1.0 - allowed.to(torch.float32)) * MASKED


def sine_embedding(x: Tensor, width: int, temperature: float = _BOX_TEMPERATURE) -> Tensor:
    """Embed a coordinate as interleaved sines and cosines.

    Args:
        x: float32 [...], an angle: the coordinate times 2 pi.
        width: number of output channels, even.
        temperature: ratio between the slowest and the fastest channel.

    Returns:
        float32 [...,width].
    """
    pairs = torch.arange(width // 2, dtype=torch.float32, device=x.device)
    angle = x[..., None] / temperature ** (2 * pairs / width)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)


def valid_cells(valid_hw: Tensor, stride: int) -> Tensor:
    """Rows and columns of cells that a picture has at a stride, int [B,2]; a cell that it only touches counts."""
    return (valid_hw + stride - 1) // stride


def inside_map(map_hw: tuple[int, int], cells: Tensor) -> Tensor:
    """Tell which cells of a frame lie in the picture.

    Args:
        map_hw: height and width of the frame, in cells.
        cells: int [B,2], rows and columns of the picture, see `valid_cells`.

    Returns:
        bool [B,H,W].
    """
    rows = torch.arange(map_hw[0], device=cells.device) < cells[:, :1]
    columns = torch.arange(map_hw[1], device=cells.device) < cells[:, 1:]
    return rows[:, :, None] & columns[:, None]


def frame_cells(level_hw: list[tuple[int, int]], device: torch.device) -> Tensor:
    """Columns and rows of each level's frame, float32 [L,2]."""
    sizes = [torch.scalar_tensor(size) for height, width in level_hw for size in (width, height)]
    return torch.stack(sizes).view(-1, 2).to(device)


def level_strides(num_levels: int) -> list[int]:
    """Pixels a cell of each level, finest first: 8, 16, 32, 64."""
    return [8 << level for level in range(num_levels)]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What the transformer needs to know of the picture in its frame; S tokens of L levels, finest first."""

    level_hw: list[tuple[int, int]]
    level: Tensor  # int64 [S], of each token
    token_valid: Tensor  # bool [B,S]
    position: Tensor  # float32 [B,S,C], sine embedding of the place in the picture
    valid_ratio: Tensor  # float32 [B,L,2], the picture's share of each level's frame as (x, y)
    center: Tensor  # float32 [B,S,2], token centre (x, y), 1 = edge of the picture
    anchor: Tensor  # float32 [B,S,4], cx, cy, w, h
    proposable: Tensor  # bool [B,S], real tokens whose anchor does not touch the border

    @property
    def reference_points(self) -> Tensor:
        """Float32 [B,S,L,2]: each token's centre in the frame of every level."""
        return self.center[:, :, None] * self.valid_ratio[:, None]


def build_geometry(frame_hw: tuple[int, int], valid_hw: Tensor, num_levels: int, width: int) -> Geometry:
    """Derive masks, positions and anchors of all levels from the picture's size.

    Args:
        frame_hw: height and width of the frame, in pixels, multiples of 32.
        valid_hw: int32 [B,2], height and width of the picture inside it, in pixels.
        num_levels: number of levels.
        width: channels of the position embedding.

    Returns:
        Geometry of all levels, tokens concatenated.
    """
    strides = level_strides(num_levels)
    level_hw = [((frame_hw[0] + s - 1) // s, (frame_hw[1] + s - 1) // s) for s in strides]
    level, row, column = _places(level_hw, valid_hw.device)  # [S]
    cells = torch.stack([valid_cells(valid_hw, stride) for stride in strides], 1).to(torch.float32)  # [B,L,2]
    rows, columns = cells[:, level].unbind(-1)  # [B,S]
    center_x, center_y = (column + 0.5) / columns, (row + 0.5) / rows
    side = (_ANCHOR_SIDE * 2.0**level).expand_as(center_x)
    token_valid = (row < rows) & (column < columns)
    return Geometry(
        level_hw=level_hw,
        level=level,
        token_valid=token_valid,
        position=torch.cat((_axis_sine(row, rows, width // 2), _axis_sine(column, columns, width // 2)), -1),
        valid_ratio=cells.flip(-1) / frame_cells(level_hw, valid_hw.device),
        center=torch.stack((center_x, center_y), -1),
        anchor=torch.stack((center_x, center_y, side, side), -1),
        proposable=token_valid & _off_the_border(row, rows) & _off_the_border(column, columns),
    )


def _places(level_hw: list[tuple[int, int]], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Level, row and column of every token, int64 [S] each."""
    levels, rows, columns = [], [], []
    for level, (height, width) in enumerate(level_hw):
        index = torch.arange(height * width, device=device)
        levels.append(torch.full_like(index, level))
        rows.append(index // width)
        columns.append(index % width)
    return torch.cat(levels), torch.cat(rows), torch.cat(columns)


def _off_the_border(index: Tensor, count: Tensor) -> Tensor:
    """Tell which of the cells [S] have their centre between 0.01 and 0.99 of an axis of count [B,S] cells.

    The same as (index + 0.5) / count > 0.01, but in whole numbers: of 50 cells, which a side of 800 pixels has at
    stride 16, the first centre is exactly 0.01, and an engine that multiplies by 1 / count would let it pass.
    """
    twice_center = 2 * index + 1  # in cells
    return (50 * twice_center > count) & (50 * twice_center < 99 * count)


def _axis_sine(index: Tensor, count: Tensor, width: int) -> Tensor:
    """Sine embedding of cells [S] along an axis of which count [B,S] are valid: float32 [B,S,width]."""
    place = torch.minimum(index + 1, count) / (count + 1e-6)
    return sine_embedding(place * (2 * math.pi), width, _IMAGE_TEMPERATURE)
