"""Choose the range of each activation that INT8 covers, from what a graph computes on calibration pictures.

The magnitudes of each activation are counted in a histogram; a method turns it into a threshold:

    min-max       the largest magnitude: nothing is clipped
    percentile    the magnitude that all but one of 10,000 values stay below
    entropy       the threshold whose 128 levels lose least information about the distribution (KL divergence)
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs
import onnxruntime

from gdino_build.parity import Arrays
from gdino_build.precision.quantisation import quantisable_nodes

_PERCENTILE = 99.99
_BINS = 2048  # of the first picture's range; larger magnitudes add more
_LEVELS = 128
_MOST_BINS = 1 << 16

Floats = npt.NDArray[Any]


@dataclass
class Histogram:
    """How often magnitudes occurred; bins have one width and start at zero.

    Attributes:
        width: of a bin; 0 until the first value that is not zero.
        counts: int64, of each bin.
        largest: magnitude seen.
    """

    width: float = 0.0
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    largest: float = 0.0

    def add(self, values: Floats) -> None:
        """Count the magnitudes of values."""
        magnitudes = np.abs(values, dtype=np.float32).ravel()
        largest = float(magnitudes.max(initial=0.0))
        if not math.isfinite(largest):
            raise ValueError("a value is infinite or no number")
        self.largest = max(self.largest, largest)
        if not largest:
            return
        self.width = self.width or largest / _BINS
        while self.largest / self.width >= _MOST_BINS:  # the first picture was nearly black to this activation
            self.counts = np.pad(self.counts, (0, len(self.counts) % 2)).reshape(-1, 2).sum(1)
            self.width *= 2
        bins = np.bincount((magnitudes / self.width).astype(np.int64))
        size = max(len(bins), len(self.counts))
        self.counts = np.pad(self.counts, (0, size - len(self.counts))) + np.pad(bins, (0, size - len(bins)))

    def threshold(self, method: str) -> float:
        """The magnitude to clip at; 0 if all values were zero."""
        if not self.width or method == "min-max":
            return self.largest
        if method == "percentile":
            below = np.searchsorted(np.cumsum(self.counts), self.counts.sum() * (_PERCENTILE / 100))
            return min(self.largest, float(below + 1) * self.width)
        return min(self.largest, _entropy_bins(self.counts) * self.width)


def count_magnitudes(
    model: onnx.ModelProto, cases: Iterable[Arrays], names: Sequence[str] | None = None
) -> dict[str, Histogram]:
    """Run a graph and count the magnitudes of activations.

    Args:
        model: of FP32.
        cases: inputs of the graph by name.
        names: of the activations; by default those that are multiplied with weights.
    """
    graph = gs.import_onnx(model)
    wanted = list(dict.fromkeys(names or [node.inputs[0].name for node in quantisable_nodes(graph)]))
    tensors = graph.tensors()
    for name in wanted:
        tensors[name].dtype = np.dtype(np.float32)
    graph.outputs = [tensors[name] for name in wanted]
    session = onnxruntime.InferenceSession(
        gs.export_onnx(graph.cleanup().toposort()).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    inputs = [one.name for one in session.get_inputs()]
    histograms = {name: Histogram() for name in wanted}
    for case in cases:
        for name, values in zip(wanted, session.run(wanted, {one: case[one] for one in inputs}), strict=True):
            histograms[name].add(values)
    return histograms


def _entropy_bins(counts: npt.NDArray[np.int64]) -> float:
    """How many bins to keep so that _LEVELS levels over them tell most about the distribution.

    Source: the 8-bit inference with TensorRT talk (S. Migacz, GTC 2017), entropy calibration.
    """
    best, best_divergence = len(counts), math.inf
    total = counts.sum()
    for kept in range(_LEVELS, len(counts) + 1, max(1, (len(counts) - _LEVELS) // 256)):
        reference = counts[:kept].astype(np.float64)
        reference[-1] += total - reference.sum()  # what is clipped
        edges = np.linspace(0, kept, _LEVELS + 1).round().astype(int)
        level = np.repeat(np.arange(_LEVELS), np.diff(edges))
        occupied = counts[:kept] > 0
        sums = np.bincount(level, counts[:kept], minlength=_LEVELS)
        sharers = np.bincount(level, occupied, minlength=_LEVELS)
        quantised = np.where(occupied, (sums / np.maximum(sharers, 1))[level], 0.0)
        divergence = _divergence(reference / reference.sum(), quantised / max(quantised.sum(), 1))
        if divergence < best_divergence:
            best, best_divergence = kept, divergence
    return float(best)


def _divergence(p: Floats, q: Floats) -> float:
    where = p > 0
    return float(np.sum(p[where] * np.log(p[where] / np.maximum(q[where], 1e-12))))
