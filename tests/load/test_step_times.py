"""Counters of a server, read twice, become what each step did between."""

import pytest
from tritonclient.grpc import service_pb2

from gdino_build.load.step_times import step_times

MS = 1_000_000  # nanoseconds, which Triton counts


def statistics(requests: int, executions: int, cached: int) -> service_pb2.ModelStatistics:
    """Every request waits 2 ms; one that the cache answers takes 0.5 ms, another 9 ms."""
    ran = requests - cached
    found = service_pb2.ModelStatistics(inference_count=ran, execution_count=executions)
    counts = {
        "success": (requests, 0),
        "queue": (requests, 2 * MS * requests),
        "compute_input": (ran, 1 * MS * ran),
        "compute_infer": (ran, 7 * MS * ran),
        "compute_output": (ran, 1 * MS * ran),
        "cache_hit": (cached, MS // 2 * cached),
    }
    for name, (count, ns) in counts.items():
        kind = getattr(found.inference_stats, name)
        kind.count, kind.ns = count, ns
    return found


def test_what_was_before_does_not_count() -> None:
    before = {"detector": statistics(100, 100, 0), "grounding_dino": statistics(100, 100, 0)}
    after = {"detector": statistics(160, 115, 0), "grounding_dino": statistics(160, 160, 0)}
    [(name, found)] = step_times(before, after).items()
    assert name == "detector"
    assert found.mean_batch == pytest.approx(60 / 15)
    assert (found.queue_ms, found.compute_ms, found.requests) == (pytest.approx(2), pytest.approx(9), 60)


def test_answers_of_the_cache_are_requests_but_run_nothing() -> None:
    before = {"text_encoder": statistics(10, 10, 0)}
    found = step_times(before, {"text_encoder": statistics(20, 10, 10)})["text_encoder"]
    assert (found.requests, found.from_cache, found.mean_batch) == (10, 10, 0)
    assert found.compute_ms == pytest.approx(0.5)
    idle = step_times(before, before)["text_encoder"]
    assert (idle.requests, idle.queue_ms, idle.compute_ms, idle.mean_batch) == (0, 0, 0, 0)
