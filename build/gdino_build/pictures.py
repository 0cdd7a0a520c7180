"""Deterministic pictures, drawn in integers so that every machine gets the same bytes."""

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]

_BITS = 12  # of fixed-point weights in the interpolation
_ONE = 1 << _BITS
_SHAPES = 7


def draw_picture(seed: int, height: int, width: int) -> Picture:
    """Draw soft colour gradients with discs and boxes on them, and a little noise.

    Args:
        seed: chooses the picture.
        height: in pixels.
        width: in pixels.

    Returns:
        uint8 [height, width, 3], RGB.
    """
    rng = np.random.default_rng(seed)
    picture = _gradients(rng.integers(0, 256, (4, 5, 3)), height, width)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    for _ in range(_SHAPES):
        cy, cx = rng.integers(0, height), rng.integers(0, width)
        ry, rx = (
            rng.integers(height // 20 + 2, height // 4 + 3),
            rng.integers(width // 20 + 2, width // 4 + 3),
        )
        if rng.integers(0, 2):
            inside = (rows - cy) ** 2 * rx**2 + (columns - cx) ** 2 * ry**2 <= (rx * ry) ** 2
        else:
            inside = (abs(rows - cy) <= ry) & (abs(columns - cx) <= rx)
        picture[inside] = (picture[inside] + 3 * rng.integers(0, 256, 3)) // 4
    noise = rng.integers(-6, 7, (height, width, 1))
    clipped: Picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    return clipped


def _gradients(corners: npt.NDArray[np.int64], height: int, width: int) -> npt.NDArray[np.int64]:
    """Enlarge a coarse grid [gh, gw, 3] bilinearly to [height, width, 3]."""
    top, weight_y = _cells(corners.shape[0], height)
    left, weight_x = _cells(corners.shape[1], width)
    rows = corners[top] * (_ONE - weight_y)[:, None, None] + corners[top + 1] * weight_y[:, None, None]
    left_part, right_part = rows[:, left] * (_ONE - weight_x)[:, None], rows[:, left + 1] * weight_x[:, None]
    picture: npt.NDArray[np.int64] = np.add(left_part, right_part, dtype=np.int64) >> 2 * _BITS
    return picture


def _cells(corners: int, size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each pixel the grid cell it lies in and how far into it, in units of 1 / _ONE."""
    place = np.arange(size, dtype=np.int64) * ((corners - 1) * _ONE) // size
    return place // _ONE, place % _ONE
