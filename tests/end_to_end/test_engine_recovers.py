"""An engine answers whatever happened before: nothing yet, or a request on which it failed."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gdino_core.batching import NamedArrays
from gdino_core.openvino_engine import OpenVinoEngine, OpenVinoSettings

ENGINE = Path("out/demo-cpu/engine/detector.xml")


def request_of(side: int) -> NamedArrays:
    rng = np.random.default_rng(0)
    return {
        "PIXELS": rng.integers(0, 256, (1, 3, side, side), dtype=np.uint8),
        "VALID_HW": np.full((1, 2), side, np.int32),
        "TEXT_FEATURES": rng.standard_normal((1, 16, 128)).astype(np.float32),
        "POSITION_IDS": np.arange(16, dtype=np.int32)[None],
        "PHRASE_IDS": np.arange(16, dtype=np.int32)[None] // 3,
    }


def answers(engine: OpenVinoEngine, *requests: NamedArrays) -> Iterator[NamedArrays | Exception]:
    found = dict(engine.infer_batches(engine.plan(requests), requests))
    return (found[place] for place in range(len(requests)))


@pytest.mark.parametrize("streams", [1, 2])
def test_a_failed_inference_leaves_nothing_behind(streams: int) -> None:
    engine = OpenVinoEngine(ENGINE, OpenVinoSettings(streams=streams))
    [before] = answers(engine, request_of(128))
    assert not isinstance(before, Exception)
    failed, beside = answers(engine, request_of(100), request_of(160))  # 100 is no multiple of the stride
    assert isinstance(failed, Exception)
    assert not isinstance(beside, Exception)
    [after] = answers(engine, request_of(128))
    assert not isinstance(after, Exception)
    for name, expected in before.items():
        np.testing.assert_array_equal(after[name], expected)


_FIRST_INFERENCES = """
from tests.end_to_end.test_engine_recovers import ENGINE, answers, request_of
from gdino_core.openvino_engine import OpenVinoEngine, OpenVinoSettings

engine = OpenVinoEngine(ENGINE, OpenVinoSettings(streams=2))
assert not any(isinstance(answer, Exception) for answer in answers(engine, request_of(128), request_of(160)))
"""


def test_the_first_inferences_of_a_process_may_run_side_by_side() -> None:
    # Only in a new process are OpenVINO's tables not made yet. Whether two threads meet there is chance: several tries.
    for _ in range(4):
        subprocess.run([sys.executable, "-c", _FIRST_INFERENCES], check=True, timeout=120)
