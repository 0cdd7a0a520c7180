"""Servers whose capacity is known, as bench.json would tell of them."""

from collections.abc import Sequence
from typing import Any


def bench(
    *, service_s: float = 0.05, at_once: int = 4, concurrencies: Sequence[int] = (1, 2, 4, 8, 16), cores: float = 1.9
) -> dict[str, Any]:
    """What a closed loop measures of a server that works on `at_once` requests side by side, each for `service_s`.

    Up to there all are worked on at once; from there on the rest wait, and no more are answered.
    """
    return {
        "profile": "demo-cpu",
        "hardware": "A Processor, 2 cores, avx2",
        "levels": [_level(concurrency, service_s, at_once, cores) for concurrency in concurrencies],
    }


def _level(concurrency: int, service_s: float, at_once: int, cores: float) -> dict[str, Any]:
    per_s = min(concurrency, at_once) / service_s
    mean_ms = 1000 * concurrency / per_s
    return {
        "concurrency": concurrency,
        "per_s": per_s,
        "p50_ms": mean_ms,
        "p95_ms": 1.2 * mean_ms,
        "p99_ms": 1.5 * mean_ms,
        "cores": cores * min(1, concurrency / at_once),
        "steps": {
            "preprocess": {"queue_ms": 0.0, "compute_ms": 200 * service_s},
            "detector": {"queue_ms": mean_ms - 1000 * service_s, "compute_ms": 800 * service_s},
        },
    }
