"""What a picture costs: a line through the peaks that a detector was seen to reach in one bucket."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Size = tuple[int, int]  # height, width


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Most memory of the detector's process while it ran batches of one size.

    Attributes:
        bucket: height and width of the pictures.
        batch: pictures in one inference; where several run side by side, each has as many.
        peak_bytes: of the whole process.
    """

    bucket: Size
    batch: int
    peak_bytes: int


@dataclass(frozen=True, kw_only=True)
class BucketCost:
    """Memory of the detector's process in one bucket: base_bytes + batch * picture_bytes."""

    bucket: Size
    base_bytes: int
    picture_bytes: int

    def bytes_at(self, batch: int) -> int:
        """Memory at a batch size."""
        return self.base_bytes + batch * self.picture_bytes

    def largest_batch(self, available_bytes: int) -> int:
        """Most pictures in a batch that fit; 0 where not even one does."""
        return max(0, (available_bytes - self.base_bytes) // max(self.picture_bytes, 1))


def fit_costs(peaks: Sequence[Peak]) -> list[BucketCost]:
    """Lay a line over the peaks of each bucket, so that none is above it.

    Args:
        peaks: of two batch sizes at least for each bucket.
    """
    costs = []
    for bucket in dict.fromkeys(peak.bucket for peak in peaks):
        batches, bytes_seen = np.array(
            [(peak.batch, peak.peak_bytes) for peak in peaks if peak.bucket == bucket], np.float64
        ).T
        slope, base = np.polyfit(batches, bytes_seen, 1)
        above = (bytes_seen - (base + slope * batches)).max()
        costs.append(BucketCost(bucket=bucket, base_bytes=round(base + above), picture_bytes=max(0, round(slope))))
    return costs
