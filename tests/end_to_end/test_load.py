"""The load tools on a real server, for seconds."""

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from gdino_build.load.soak import ANSWERED, REFUSED, REJECTED, Load, Mix, hold_load, measure_capacity
from gdino_build.load.step_times import read_statistics, step_times
from gdino_build.machine import session_bytes, session_cpu_seconds, session_processes
from gdino_build.serve import RunningServer
from gdino_client import Client

pytestmark = pytest.mark.server

SAMPLES = Path("demo/samples")
ANNOTATIONS = json.loads((SAMPLES / "annotations.json").read_text(encoding="utf-8"))
MIX = Mix(
    pictures=[(SAMPLES / image["file_name"]).read_bytes() for image in ANNOTATIONS["images"]],
    labels=[category["name"] for category in ANNOTATIONS["categories"]],
)


def test_statistics_count_the_requests_of_each_step(server: RunningServer, client: Client) -> None:
    before, cpu_s = read_statistics(server.grpc_url), session_cpu_seconds(server.pid)
    for _ in range(3):
        client.detect(SAMPLES / "1-landscape.jpg", ["red circle", "blue star"])
    steps = step_times(before, read_statistics(server.grpc_url))
    assert steps.keys() == {"preprocess", "text_encoder", "detector", "postprocess"}
    assert {name: one.requests for name, one in steps.items()} == dict.fromkeys(steps, 3)
    assert all(one.compute_ms > 0 for one in steps.values())
    assert steps["detector"].mean_batch == 1
    assert session_cpu_seconds(server.pid) > cpu_s
    assert session_bytes(server.pid) > 100 << 20


def test_a_load_above_capacity_ends_in_answers_rejections_and_refusals_only(server: RunningServer) -> None:
    processes = session_processes(server.pid)
    assert sum("triton_python_backend_stub" in command for command in processes.values()) >= 4
    capacity = asyncio.run(measure_capacity(server.grpc_url, MIX, clients=16, seconds=3.0))
    assert capacity > 1
    load = Load(per_s=3 * capacity, seconds=5.0, timeout_s=1.0)
    outcomes = asyncio.run(hold_load(server.grpc_url, MIX, load))
    kinds = Counter(outcome.kind for outcome in outcomes)
    assert sum(kinds.values()) == round(15 * capacity)
    assert kinds.keys() <= {ANSWERED, REJECTED, REFUSED}, [one.message for one in outcomes if one.kind == "failed"][:3]
    assert kinds[ANSWERED]
    assert kinds[REJECTED]
    assert session_processes(server.pid).keys() == processes.keys()
