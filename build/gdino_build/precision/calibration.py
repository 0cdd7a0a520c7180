"""Choose the range of each activation that INT8 covers, from what a graph computes on calibration pictures.

The magnitudes of each activation are counted in a histogram; a method turns it into a threshold:

    min-max       the largest magnitude: nothing is clipped
    percentile    the magnitude that all but one of 10,000 values stay below
    entropy       the threshold whose 128 levels lose least information about the distribution but its zeros
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
from gdino_build.precision.extremes import largest_magnitudes
from gdino_build.precision.quantisation import quantisable_nodes
from gdino_core.errors import ExportError

_PERCENTILE = 99.99
_BINS = 2048  # of the first picture's range; larger magnitudes add more
_MOST_BINS = 1 << 16
_NARROWEST_BIN = float(np.finfo(np.float32).tiny)  # FP32 divides by no smaller one exactly
_LEVELS = 128
_CANDIDATES = 257  # thresholds that entropy compares
_NEARLY_NONE = 1e-4  # of a value in a bin

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
        """Count the magnitudes of values.

        Raises:
            ValueError: a value is infinite or no number; nothing is counted then.
        """
        magnitudes = np.abs(values, dtype=np.float32).ravel()
        largest = float(magnitudes.max(initial=0.0))
        if not math.isfinite(largest):
            raise ValueError(f"a value is {largest}")
        self.largest = max(self.largest, largest)
        if largest and not self.width:
            self.width = max(largest / _BINS, _NARROWEST_BIN)
        # Too many bins follow a first picture that was nearly black to this activation.
        while self.width and self.largest / self.width >= _MOST_BINS:
            self.counts = np.pad(self.counts, (0, len(self.counts) % 2)).reshape(-1, 2).sum(1)
            self.width *= 2
        bins = np.bincount((magnitudes / (self.width or 1.0)).astype(np.int64))
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


def choose_thresholds(model: onnx.ModelProto, cases: Iterable[Arrays], method: str) -> dict[str, float]:
    """Run a graph and choose the threshold of each activation that is multiplied with weights.

    Args:
        model: of FP32.
        cases: inputs of the graph by name.
        method: one of calibration_settings.METHODS. Only min-max needs no histogram: it runs in a quarter of the
            memory that the others take, which keep all activations of a picture.

    Raises:
        ExportError: an activation is infinite or no number.
    """
    names = list(dict.fromkeys(node.inputs[0].name for node in quantisable_nodes(gs.import_onnx(model))))
    if method != "min-max":
        return {name: found.threshold(method) for name, found in count_magnitudes(model, names, cases).items()}
    largest = dict.fromkeys(names, 0.0)
    numbered = ((str(number), case) for number, case in enumerate(cases, start=1))
    for number, magnitudes in largest_magnitudes(model, names, numbered):
        for name, magnitude in magnitudes.items():
            if magnitude == math.inf:
                raise _not_calibrated(name, int(number), "a value is infinite or no number")
            largest[name] = max(largest[name], magnitude)
    return largest


def count_magnitudes(model: onnx.ModelProto, names: Sequence[str], cases: Iterable[Arrays]) -> dict[str, Histogram]:
    """Run a graph and count the magnitudes of activations.

    Args:
        model: of FP32.
        names: of the activations.
        cases: inputs of the graph by name.

    Raises:
        ExportError: an activation is infinite or no number.
    """
    graph = gs.import_onnx(model)
    tensors = graph.tensors()
    for name in names:
        tensors[name].dtype = np.dtype(np.float32)
    graph.outputs = [tensors[name] for name in names]
    session = onnxruntime.InferenceSession(
        gs.export_onnx(graph.cleanup().toposort()).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    inputs = [one.name for one in session.get_inputs()]
    histograms = {name: Histogram() for name in names}
    for number, case in enumerate(cases, start=1):
        for name, values in zip(names, session.run(names, {one: case[one] for one in inputs}), strict=True):
            try:
                histograms[name].add(values)
            except ValueError as error:
                raise _not_calibrated(name, number, str(error)) from error
    return histograms


def _not_calibrated(name: str, number: int, reason: str) -> ExportError:
    return ExportError(
        f"the activation {name} cannot be calibrated on picture {number} of those drawn: {reason}",
        fix="the graph fails in FP32 already: compare it with the checkpoint by gdino-build verify",
    )


def _entropy_bins(counts: npt.NDArray[np.int64]) -> int:
    """How many bins to keep so that _LEVELS levels over them tell most about the distribution.

    Source: the 8-bit inference with TensorRT talk (S. Migacz, GTC 2017). Zeros as in NVIDIA's pytorch-quantization,
    calib/histogram.py, _compute_amax_entropy(); bins that q leaves empty as in ONNX Runtime's smooth_distribution().
    """
    counts = counts.copy()
    # Zeros are exact with every threshold. Counted, those of a ReLU drown what its threshold does to the rest.
    counts[0] = counts[1]
    total = counts.sum()
    best, best_divergence = len(counts), math.inf
    for kept in np.unique(np.linspace(_LEVELS, len(counts), _CANDIDATES).astype(int))[::-1]:
        reference = counts[:kept].astype(np.float64)
        reference[-1] += total - reference.sum()  # what is clipped
        occupied = counts[:kept] > 0
        level = np.arange(kept) * _LEVELS // kept
        sums = np.bincount(level, counts[:kept], minlength=_LEVELS)
        sharers = np.bincount(level, occupied, minlength=_LEVELS)
        quantised = np.where(occupied, (sums / np.maximum(sharers, 1))[level], 0.0)
        divergence = _divergence(reference, quantised)
        if divergence < best_divergence:
            best, best_divergence = int(kept), divergence
    return best


def _divergence(p: Floats, q: Floats) -> float:
    """Kullback-Leibler divergence of two histograms; what q lacks counts as _NEARLY_NONE, or it were infinite."""
    where = p > 0
    p, q = p[where] / p.sum(), np.maximum(q[where], _NEARLY_NONE) / q.sum()
    return float(np.sum(p * np.log(p / q)))
