"""Requests that run together are answered as if each had run alone, whatever their shapes, sizes and order."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdino_core.batching import Answers, NamedArrays, gather, plan_batches


def request_of(rows: int, width: int, first: int) -> NamedArrays:
    return {
        "X": np.arange(first, first + rows * width, dtype=np.int64).reshape(rows, width),
        "Y": np.full((rows, 2, 1), first),
    }


def engine(inputs: NamedArrays) -> NamedArrays:
    """One row of outputs from each row of inputs, of a width of its own."""
    return {"SUM": inputs["X"].sum(1), "BOTH": np.concatenate([inputs["X"], inputs["Y"][:, 0]], axis=1)}


def answer(
    requests: list[NamedArrays], max_rows: int, lanes: int, backwards: bool
) -> Iterator[tuple[int, NamedArrays]]:
    batches = plan_batches(requests, max_rows, lanes)
    answers = Answers(batches)
    for batch in reversed(batches) if backwards else batches:
        inputs = gather(batch, requests)
        assert len(inputs["X"]) <= max_rows
        yield from answers.add(batch, engine(inputs))


requests_of_shapes = st.lists(st.tuples(st.integers(0, 7), st.integers(1, 3)), min_size=1, max_size=12)


@given(shapes=requests_of_shapes, max_rows=st.integers(1, 5), lanes=st.integers(1, 4), backwards=st.booleans())
def test_every_request_is_answered_once_as_if_alone(
    shapes: list[tuple[int, int]], max_rows: int, lanes: int, backwards: bool
) -> None:
    requests = [request_of(rows, width, 1000 * place) for place, (rows, width) in enumerate(shapes)]
    answered = list(answer(requests, max_rows, lanes, backwards))
    assert sorted(place for place, _ in answered) == list(range(len(requests)))
    for place, outputs in answered:
        for name, expected in engine(requests[place]).items():
            np.testing.assert_array_equal(outputs[name], expected)


def test_only_equal_shapes_share_a_batch_and_the_first_come_first() -> None:
    requests = [request_of(rows=1, width=width, first=0) for width in (2, 3, 2, 3, 4)]
    batches = plan_batches(requests, max_rows=8)
    assert [[rows.request for rows in batch] for batch in batches] == [[0, 2], [1, 3], [4]]


@pytest.mark.parametrize(("lanes", "sizes"), [(1, [8, 2]), (2, [5, 5]), (3, [4, 4, 2]), (20, [1] * 10)])
def test_lanes_share_the_rows(lanes: int, sizes: list[int]) -> None:
    requests = [request_of(rows=1, width=2, first=0)] * 10
    assert [len(batch) for batch in plan_batches(requests, max_rows=8, lanes=lanes)] == sizes


def test_side_by_side_the_largest_batch_comes_first() -> None:
    """Else a lane that is given it last works on alone."""
    requests = [request_of(rows=1, width=width, first=0) for width in (1, 2, 40, 1, 2, 2)]
    batches = plan_batches(requests, max_rows=8, lanes=2)
    assert [[rows.request for rows in batch] for batch in batches] == [[2], [1, 4, 5], [0, 3]]


def test_a_request_that_fills_a_batch_is_not_copied() -> None:
    request = request_of(rows=3, width=2, first=0)
    [batch] = plan_batches([request], max_rows=8)
    assert np.shares_memory(gather(batch, [request])["X"], request["X"])
