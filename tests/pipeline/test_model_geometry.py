"""What is inside the picture gets what the original computes from the picture alone, whatever frame it lies in."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gdino_build.golden import tokens_in_frame
from gdino_build.model.geometry import Geometry, additive_mask, build_geometry, inside_map, sine_embedding, valid_cells

WIDTH = 32
LEVELS = 4
STRIDES = st.integers(1, 40)


def geometry_of(frame_hw: tuple[int, int], *valid_hw: tuple[int, int]) -> Geometry:
    return build_geometry(frame_hw, torch.tensor(valid_hw, dtype=torch.int32), LEVELS, WIDTH)


def levels_of(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes of the original's maps, step by step: patches of 4, three mergings of 2, a convolution of stride 2."""
    sizes = []
    cells = [-(-side // 4) for side in (height, width)]
    for _ in range(LEVELS):
        cells = [-(-side // 2) for side in cells]
        sizes.append((cells[0], cells[1]))
    return sizes


def original_masks(hw: tuple[int, int]) -> list[Tensor]:
    """For each level bool [h,w], all True: backbone.py, Joiner, and groundingdino.py, forward(), without padding."""
    return [torch.ones(size, dtype=torch.bool) for size in levels_of(*hw)]


def in_frame(frame_hw: tuple[int, int], valid_hw: tuple[int, int]) -> Tensor:
    """Where the original's tokens are in the frame, int64 [n]."""
    count = sum(height * width for height, width in levels_of(*valid_hw))
    return torch.from_numpy(tokens_in_frame(np.arange(count, dtype=np.int32), valid_hw, frame_hw)).long()


def original_position(mask: Tensor) -> Tensor:
    """Float32 [h*w,WIDTH]: position_encoding.py, PositionEmbeddingSineHW.forward()."""
    rows, columns = mask.cumsum(0, dtype=torch.float32), mask.cumsum(1, dtype=torch.float32)
    rows = rows / (rows[-1:] + 1e-6) * 2 * math.pi
    columns = columns / (columns[:, -1:] + 1e-6) * 2 * math.pi
    channels = torch.arange(WIDTH // 2, dtype=torch.float32)
    frequency = 20 ** (2 * torch.div(channels, 2, rounding_mode="floor") / (WIDTH // 2))
    halves = []
    for place in (rows, columns):
        angle = place[..., None] / frequency
        halves.append(torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=-1).flatten(-2))
    return torch.cat(halves, dim=-1).flatten(0, 1)


def original_anchors(mask: Tensor, level: int) -> Tensor:
    """Float32 [h*w,4]: utils.py, gen_encoder_output_proposals(), before its logarithm."""
    valid_h, valid_w = mask[:, 0].sum(), mask[0].sum()
    rows, columns = torch.meshgrid(*(torch.arange(size) + 0.5 for size in mask.shape), indexing="ij")
    side = torch.full(mask.shape, 0.05 * 2.0**level)
    return torch.stack((columns / valid_w, rows / valid_h, side, side), dim=-1).flatten(0, 1)


def assert_as_the_original(frame_hw: tuple[int, int], valid_hw: tuple[int, int]) -> None:
    geometry = geometry_of(frame_hw, valid_hw)
    masks, tokens = original_masks(valid_hw), in_frame(frame_hw, valid_hw)
    assert geometry.token_valid[0].nonzero()[:, 0].tolist() == tokens.tolist()
    anchors = torch.cat([original_anchors(mask, level) for level, mask in enumerate(masks)])
    torch.testing.assert_close(geometry.anchor[0, tokens], anchors)
    torch.testing.assert_close(geometry.center[0, tokens], anchors[:, :2])
    inside = ((anchors > 0.01) & (anchors < 0.99)).all(-1)
    assert torch.equal(geometry.proposable[0, tokens], inside)
    assert not geometry.proposable[0, ~geometry.token_valid[0]].any()
    # A centre, as a share of the picture, is so many cells from the edge in the frame as in the picture.
    frame = torch.tensor(levels_of(*frame_hw)).flip(-1)
    cells = torch.tensor([mask.shape for mask in masks]).flip(-1)
    torch.testing.assert_close(geometry.valid_ratio[0] * frame, cells.float())


@settings(max_examples=60, deadline=None)
@given(STRIDES, STRIDES, st.data())
def test_a_picture_of_any_size_is_placed_as_by_the_original(rows: int, columns: int, data: st.DataObject) -> None:
    frame_hw = 32 * rows, 32 * columns
    assert_as_the_original(frame_hw, (data.draw(st.integers(1, frame_hw[0])), data.draw(st.integers(1, frame_hw[1]))))


@pytest.mark.parametrize("valid_hw", [(800, 1344), (800, 1200), (799, 1333), (1, 1)])
def test_pictures_are_placed_as_by_the_original_at_full_size(valid_hw: tuple[int, int]) -> None:
    assert_as_the_original((800, 1344), valid_hw)


def test_a_centre_exactly_on_the_margin_is_not_proposed() -> None:
    # 800 pixels are 50 cells at stride 16: the first and the last centre are exactly 0.01 and 0.99.
    assert_as_the_original((800, 64), (800, 64))
    geometry = geometry_of((800, 64), (800, 64))
    stride_16 = geometry.proposable[0, geometry.level == 1].view(50, 4)
    assert stride_16.any(1).tolist() == [False, *[True] * 48, False]


@pytest.mark.parametrize(
    ("frame_hw", "valid_hw"), [((96, 128), (96, 128)), ((160, 288), (151, 250)), ((288, 160), (33, 1))]
)
def test_positions_are_those_of_the_original(frame_hw: tuple[int, int], valid_hw: tuple[int, int]) -> None:
    expected = torch.cat([original_position(mask) for mask in original_masks(valid_hw)])
    position = geometry_of(frame_hw, valid_hw).position[0, in_frame(frame_hw, valid_hw)]
    torch.testing.assert_close(position, expected, rtol=0, atol=2e-6)


def test_pictures_of_a_batch_do_not_share_their_padding() -> None:
    both = geometry_of((96, 128), (96, 128), (50, 90))
    for index, valid_hw in enumerate([(96, 128), (50, 90)]):
        alone = geometry_of((96, 128), valid_hw)
        for field in ("token_valid", "position", "valid_ratio", "center", "anchor", "reference_points", "proposable"):
            assert torch.equal(getattr(both, field)[index], getattr(alone, field)[0]), field


def test_a_cell_that_the_picture_only_touches_is_inside() -> None:
    cells = valid_cells(torch.tensor([[9, 16], [8, 1]]), [8, 4])
    assert cells.tolist() == [[[2, 2], [3, 4]], [[1, 1], [2, 1]]]
    assert inside_map((2, 3), cells[:, 0]).int().tolist() == [[[1, 1, 0], [1, 1, 0]], [[1, 0, 0], [0, 0, 0]]]


def test_tokens_know_their_level() -> None:
    assert torch.bincount(geometry_of((96, 128), (96, 128)).level).tolist() == [12 * 16, 6 * 8, 3 * 4, 2 * 2]


def test_sine_embedding_interleaves_sines_and_cosines_of_falling_frequency() -> None:
    angle = 0.7
    expected = [math.sin(angle), math.cos(angle), math.sin(angle / 100), math.cos(angle / 100)]
    torch.testing.assert_close(sine_embedding(torch.tensor([angle]), 4)[0], torch.tensor(expected))


def test_masked_scores_vanish_in_a_softmax_and_stay_finite_in_half_precision() -> None:
    mask = additive_mask(torch.tensor([True, False]))
    assert mask.softmax(-1).tolist() == [1.0, 0.0]
    assert mask.half().isfinite().all()
