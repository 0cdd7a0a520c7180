"""A long load is held only without errors, growth, restarts and late answers; each is told by its figure."""

from dataclasses import replace

import pytest

from gdino_build.load.mixed_load import ANSWERED, FAILED, REFUSED, REJECTED, Load, Outcome
from gdino_build.load.soak_verdict import SoakRun, format_verdict, judge, memory_growth

OUTCOMES = [
    *(Outcome(kind=ANSWERED, priority=1, seconds=0.1 + index / 1000) for index in range(200)),
    *(Outcome(kind=ANSWERED, priority=2, seconds=2.0) for _ in range(50)),
    *(Outcome(kind=REJECTED, priority=2, seconds=0.1, message="queue") for _ in range(300)),
    Outcome(kind=REFUSED, priority=1, seconds=0.1, message="picture"),
]
HELD = SoakRun(
    capacity_per_s=1.0,
    load=Load(per_s=2.0, seconds=60.0, timeout_s=4.0),
    outcomes=OUTCOMES,
    memory_bytes=[80, 95, 100, 100, 101, 100, 99, 100, 101, 100],
    processes_before={1: "tritonserver", 2: "stub"},
    processes_after={1: "tritonserver", 2: "stub"},
    latest_s=5.0,
)


def test_rejections_and_refusals_are_no_errors() -> None:
    report = judge(HELD)
    assert report["not_held"] == []
    assert (report["answered"], report["rejected"], report["refused"], report["failed"]) == (250, 300, 1, 0)
    assert report["latency"]["interactive"]["p50_ms"] == pytest.approx(199.5)
    assert report["latency"]["bulk"]["p99_ms"] == 2000
    assert format_verdict(report | {"profile": "demo", "hardware": "this"}).endswith("all held\n")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"outcomes": [*OUTCOMES, Outcome(kind=FAILED, priority=1, seconds=1, message="INTERNAL: x")]},
            "1 requests failed: INTERNAL: x",
        ),
        ({"outcomes": OUTCOMES[250:]}, "no request was answered"),
        ({"memory_bytes": [80, 95, 100, 100, 101, 101, 102, 102, 103, 103]}, "memory grew by 3.0%"),
        ({"processes_after": {1: "tritonserver", 3: "stub"}}, "2 processes came or went"),
        ({"latest_s": 1.9}, "p99 of bulk requests is 2000 ms, more than 1900"),
    ],
)
def test_what_does_not_hold_is_told(change: dict[str, object], said: str) -> None:
    report = judge(replace(HELD, **change))  # type: ignore[arg-type]
    assert [sentence for sentence in report["not_held"] if said in sentence] == report["not_held"][:1]
    assert report["not_held"]


def test_growth_leaves_out_the_first_fifth() -> None:
    assert memory_growth([1] * 10 + [100] * 40) == 0
    assert memory_growth([100] * 40 + [110] * 10) == pytest.approx(0.1)
    assert memory_growth([5, 6]) == 0.0
