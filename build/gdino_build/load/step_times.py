"""What a server's statistics say of the steps of the ensemble between two moments."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import InferenceServerClient

from gdino_core import contract

Statistics = Mapping[str, Any]  # by model name, tritonclient's ModelStatistics


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """Means of the requests that one step answered.

    Attributes:
        queue_ms: that a request waited.
        compute_ms: of its batch, or of the cache's answer.
        mean_batch: rows that Triton handed over together; 0 where all came from the cache.
        requests: that were answered.
        from_cache: of those.
    """

    queue_ms: float
    compute_ms: float
    mean_batch: float
    requests: int
    from_cache: int


def read_statistics(grpc_url: str) -> Statistics:
    """Ask a server for the statistics of all its models."""
    with InferenceServerClient(grpc_url) as client:
        return {one.name: one for one in client.get_inference_statistics().model_stats}


def step_times(before: Statistics, after: Statistics) -> dict[str, StepTimes]:
    """What each step did between two moments; the ensemble itself is left out."""
    return {
        name: _difference(before[name], after[name]) for name in sorted(after) if name != contract.MODEL_GROUNDING_DINO
    }


def _difference(before: Any, after: Any) -> StepTimes:
    def since(kind: str, field: str) -> int:
        found: int = getattr(getattr(after.inference_stats, kind), field) - getattr(
            getattr(before.inference_stats, kind), field
        )
        return found

    requests, executions = since("success", "count"), after.execution_count - before.execution_count
    compute_ns = sum(since(kind, "ns") for kind in ("compute_input", "compute_infer", "compute_output", "cache_hit"))
    return StepTimes(
        queue_ms=since("queue", "ns") / max(requests, 1) / 1e6,
        compute_ms=compute_ns / max(requests, 1) / 1e6,
        mean_batch=(after.inference_count - before.inference_count) / max(executions, 1),
        requests=requests,
        from_cache=since("cache_hit", "count"),
    )
