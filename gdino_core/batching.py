"""Put requests together into batches of equal shapes, and take the answers of the batches apart again."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

NamedArrays = Mapping[str, npt.NDArray[Any]]  # each with the batch axis first


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of a request that are in a batch: those from `start` to before `end`."""

    request: int
    start: int
    end: int


Batch = Sequence[Rows]


def count_rows(batch: Batch) -> int:
    """How many rows a batch holds."""
    return sum(rows.end - rows.start for rows in batch)


def plan_batches(requests: Sequence[NamedArrays], max_rows: int, lanes: int = 1) -> list[Batch]:
    """Choose what runs together: rows of equal shapes, the first to come first.

    Args:
        requests: inputs of each, of one and the same number of rows in all its arrays.
        max_rows: most rows in a batch.
        lanes: batches that run side by side. Batches get no larger than one of them has to do for all to have an
            equal share.

    Returns:
        Batches that hold every row once. A request with more rows than a batch holds is in several. Where batches run
        side by side the largest come first, so that at the end no lane waits long for the others.
    """
    counts = [len(next(iter(arrays.values()))) for arrays in requests]
    max_rows = max(1, min(max_rows, -(-sum(counts) // lanes)))
    by_shapes: dict[tuple[tuple[int, ...], ...], list[list[Rows]]] = {}
    for request, (arrays, count) in enumerate(zip(requests, counts, strict=True)):
        batches = by_shapes.setdefault(tuple(array.shape[1:] for array in arrays.values()), [])
        start = 0
        while True:  # once for a request without rows, which has to be answered too
            if not batches or count_rows(batches[-1]) == max_rows:
                batches.append([])
            end = min(start + max_rows - count_rows(batches[-1]), count)
            batches[-1].append(Rows(request=request, start=start, end=end))
            start = end
            if start == count:
                break
    planned: list[Batch] = [batch for batches in by_shapes.values() for batch in batches]
    planned.sort(key=lambda batch: batch[0].request)
    if lanes > 1:
        planned.sort(key=lambda batch: count_rows(batch) * _row_elements(requests[batch[0].request]), reverse=True)
    return planned


def _row_elements(arrays: NamedArrays) -> int:
    return sum(math.prod(array.shape[1:]) for array in arrays.values())


def gather(batch: Batch, requests: Sequence[NamedArrays]) -> NamedArrays:
    """Arrays of one batch; a request that fills it alone is not copied."""
    parts = [{name: array[rows.start : rows.end] for name, array in requests[rows.request].items()} for rows in batch]
    return _concatenated(parts)


class Answers:
    """Collects the answers of batches until those of a request are whole."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        """Note how many batches each request is in."""
        self._batches = Counter(rows.request for batch in batches for rows in batch)
        self._parts: dict[int, dict[int, NamedArrays]] = {request: {} for request in self._batches}

    def add(self, batch: Batch, outputs: NamedArrays) -> Iterator[tuple[int, NamedArrays]]:
        """Take the outputs of a batch; yields the requests that they complete, with all their outputs."""
        place = 0
        for rows in batch:
            following = place + rows.end - rows.start
            parts = self._parts[rows.request]
            parts[rows.start] = {name: array[place:following] for name, array in outputs.items()}
            place = following
            if len(parts) == self._batches[rows.request]:
                ordered = [parts[start] for start in sorted(parts)]
                yield rows.request, _concatenated(ordered)


def _concatenated(parts: Sequence[NamedArrays]) -> NamedArrays:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
