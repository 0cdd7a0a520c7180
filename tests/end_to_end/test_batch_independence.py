"""The answer to a request is the same alone and beside any others, through the real server.

Engines add in another order in another batch, so numbers may differ in their last digits: scores by 1e-5, boxes by a
hundredth of a pixel. What is found and how it is labelled may not.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import InferenceServerClient

from gdino_build.serve import RunningServer
from gdino_client import Client, Detections

pytestmark = pytest.mark.server

SCORE_ATOL, BOX_ATOL = 1e-5, 0.01  # of 1; pixels of pictures of 128 to 900 pixels a side
BORDER = 2 * SCORE_ATOL  # so close to the threshold a detection may come or go

PICTURES = sorted(Path("demo/samples").glob("[1-8]-*.*"))
LABELS = [
    f"{colour} {shape}" for colour in ("red", "green", "yellow", "purple") for shape in ("circle", "star", "square")
]


@dataclass(frozen=True)
class Asked:
    """One request."""

    picture: Path
    prompt: str | tuple[str, ...]
    box_threshold: float

    def __call__(self, client: Client) -> Detections:
        prompt = self.prompt if isinstance(self.prompt, str) else list(self.prompt)
        return client.detect(self.picture, prompt, box_threshold=self.box_threshold)


label_lists = st.lists(st.sampled_from(LABELS), min_size=1, max_size=len(LABELS), unique=True)
prompts = label_lists.map(tuple) | label_lists.map(lambda labels: " . ".join(labels) + " .")
asked = st.builds(Asked, st.sampled_from(PICTURES), prompts, st.sampled_from([0.2, 0.35, 0.5]))


@pytest.fixture(scope="module")
def alone(server: RunningServer, client: Client) -> Iterator[Callable[[Asked], Detections]]:
    """Asks for one answer at a time; at the end, checks that the server did batch the others."""
    yield cache(lambda one: one(client))
    with InferenceServerClient(server.grpc_url) as triton:
        [detector] = triton.get_inference_statistics("detector").model_stats
    assert detector.execution_count < detector.inference_count


def differences(expected: Detections, got: Detections, threshold: float) -> list[str]:
    """What two answers disagree in, taken as sets: nearly equal scores may change places."""
    left = list(got)
    found = []
    for one in expected:
        twin = next(
            (
                other
                for other in left
                if (other.label, other.label_index) == (one.label, one.label_index)
                and abs(other.score - one.score) <= SCORE_ATOL
                and np.abs(np.subtract(other.box_xyxy, one.box_xyxy)).max() <= BOX_ATOL
            ),
            None,
        )
        if twin is not None:
            left.remove(twin)
        elif one.score > threshold + BORDER:
            found.append(f"lost {one}")
    return found + [f"new {one}" for one in left if one.score > threshold + BORDER]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(asked, min_size=2, max_size=12))
def test_a_request_is_answered_as_alone_whatever_is_beside_it(
    client: Client, alone: Callable[[Asked], Detections], requests: list[Asked]
) -> None:
    expected = [alone(one) for one in requests]
    with ThreadPoolExecutor(len(requests)) as pool:
        together = list(pool.map(lambda one: one(client), requests))
    for one, before, after in zip(requests, expected, together, strict=True):
        assert not differences(before, after, one.box_threshold), one
