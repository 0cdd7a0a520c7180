"""Masks, position embeddings and anchors of a picture in a larger frame, in closed form.

The picture lies at the top left of its frame, and the rest is padding that must not show: what is inside the picture
gets what the original computes from the picture alone. All of it follows from the number of rows and columns that each
level of the picture has.

Source: GroundingDINO, models/GroundingDINO/transformer.py, utils.py and backbone/position_encoding.py.
"""

import math
from collections.abc import Sequence
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


def sine_angles(x: Tensor, width: int, temperature: float = _BOX_TEMPERATURE) -> Tensor:
    """Angles of a sine embedding.

    Args:
        x: float32 [...], the coordinate times 2 pi.
        width: number of channels of the embedding, even: a sine and a cosine of each angle.
        temperature: ratio between the slowest and the fastest channel.

    Returns:
        float32 [...,width/2].
    """
    pairs = torch.arange(width // 2, dtype=torch.float32, device=x.device)
    return x[..., None] / temperature ** (2 * pairs / width)


def sine_embedding(x: Tensor, width: int, temperature: float = _BOX_TEMPERATURE) -> Tensor:
    """Embed a coordinate as sines and cosines in turn: float32 [...,width]; arguments as in `sine_angles`."""
    angle = sine_angles(x, width, temperature)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)


def valid_cells(valid_hw: Tensor, strides: Sequence[int]) -> Tensor:
    """Rows and columns of cells that a picture has at each stride, int [B,len(strides),2].

    A cell that the picture only touches counts.
    """
    stride = torch.tensor(strides, dtype=valid_hw.dtype, device=valid_hw.device)[:, None]
    return (valid_hw[:, None] + stride - 1) // stride


def inside_map(map_hw: tuple[int, int], valid_hw: Tensor) -> Tensor:
    """Tell which cells of a frame lie in the picture.

    Args:
        map_hw: height and width of the frame, in cells.
        valid_hw: int [B,2], rows and columns of the picture, in cells.

    Returns:
        bool [B,H,W].
    """
    rows = torch.arange(map_hw[0], device=valid_hw.device) < valid_hw[:, :1]
    columns = torch.arange(map_hw[1], device=valid_hw.device) < valid_hw[:, 1:]
    return rows[:, :, None] & columns[:, None]


@dataclass(frozen=True, kw_only=True)
class Lines:
    """The P rows and columns of L maps, map by map, rows before columns, and the S cells where they cross.

    What a cell has of its row and of its column is computed for lines, which are few, and then spread over cells.

    Attributes:
        axis: int64 [P], number of the map times two, plus one for columns.
        index: int64 [P], of the line in its map.
        length: int64 [P], how many such lines its map has.
        level: int64 [S], number of the map of each cell, map by map, row by row.
        crossing: int64 [S,2], numbers of its row and its column among the lines.
    """

    axis: Tensor
    index: Tensor
    length: Tensor
    level: Tensor
    crossing: Tensor

    def of_axis(self, values: Tensor) -> Tensor:
        """Each line's value of its axis, [B,P]: values [B,L,2] are of rows and columns of each map."""
        return values.flatten(1)[:, self.axis]

    def over_cells(self, of_lines: Tensor) -> Tensor:
        """Each cell's values of its row and of its column, [B,S,2,...], from those of lines, [B,P,...]."""
        return of_lines[:, self.crossing]


def map_lines(map_hws: Sequence[tuple[int, int]], device: torch.device) -> Lines:
    """Lines of maps of the given heights and widths."""
    axes, indices, lengths, levels, crossings, start = [], [], [], [], [], 0
    for level, (height, width) in enumerate(map_hws):
        for axis, length in enumerate((height, width)):
            index = torch.arange(length, device=device)
            axes.append(torch.full_like(index, 2 * level + axis))
            indices.append(index)
            lengths.append(torch.zeros_like(index) + length)
        cell = torch.arange(height * width, device=device)
        levels.append(torch.full_like(cell, level))
        crossings.append(torch.stack((start + cell // width, start + height + cell % width), -1))
        start = start + height + width
    return Lines(
        axis=torch.cat(axes),
        index=torch.cat(indices),
        length=torch.cat(lengths),
        level=torch.cat(levels),
        crossing=torch.cat(crossings),
    )


def inside_maps(map_hws: Sequence[tuple[int, int]], cells: Tensor) -> list[Tensor]:
    """Tell which cells of several frames lie in the picture, which has cells int [B,L,2] of each: bool [B,H*W]."""
    lines = map_lines(map_hws, cells.device)
    return split_levels(both_axes(lines.over_cells(lines.index < lines.of_axis(cells))), map_hws)


def both_axes(holds: Tensor) -> Tensor:
    """Whether a condition bool [...,2] holds along both axes, bool [...]."""
    return holds[..., 0] & holds[..., 1]


def split_levels(x: Tensor, map_hws: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Take values [B,S,...] of the cells of several maps apart: [B,H*W,...] each."""
    parts, start = [], 0
    for height, width in map_hws:
        stop = start + height * width
        parts.append(x[:, start:stop])
        start = stop
    return parts


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
    lines = map_lines(level_hw, valid_hw.device)
    cells = valid_cells(valid_hw, strides)  # [B,L,2]
    counts = lines.of_axis(cells)  # [B,P]
    center = lines.over_cells((lines.index + 0.5) / counts)[..., [1, 0]]  # [B,S,2], (x, y)
    side = (_ANCHOR_SIDE * 2.0**lines.level)[:, None].repeat(1, 2).expand_as(center)
    inside = lines.index < counts
    sines = lines.over_cells(_line_sines(lines.index, counts, width // 2))  # [B,S,2,C/2]
    return Geometry(
        level_hw=level_hw,
        level=lines.level,
        token_valid=both_axes(lines.over_cells(inside)),
        position=sines.view(-1, lines.level.shape[0], width),
        valid_ratio=cells[..., [1, 0]] / frame_cells(level_hw, valid_hw.device),
        center=center,
        anchor=torch.cat((center, side), -1),
        proposable=both_axes(lines.over_cells(inside & _off_the_border(lines.index, counts))),
    )


def _off_the_border(index: Tensor, counts: Tensor) -> Tensor:
    """Tell of which lines [P] the centre is between 0.01 and 0.99 of counts [B,P] lines.

    The same as (index + 0.5) / counts > 0.01, but in whole numbers: of 50 cells, which a side of 800 pixels has at
    stride 16, the first centre is exactly 0.01, and an engine that multiplies by 1 / counts would let it pass.
    """
    twice_center = 2 * index + 1  # in lines
    return (50 * twice_center > counts) & (50 * twice_center < 99 * counts)


def _line_sines(index: Tensor, counts: Tensor, width: int) -> Tensor:
    """Sine embeddings of lines [P], of which counts [B,P] are valid: float32 [B,P,width]."""
    place = torch.minimum(index + 1, counts) / (counts + 1e-6)
    return sine_embedding(place * (2 * math.pi), width, _IMAGE_TEMPERATURE)
