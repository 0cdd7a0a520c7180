"""The load tools on a real server, for seconds."""

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from gdino_build.load.bare_engine import BareEngine
from gdino_build.load.bench import Bench, measure_levels
from gdino_build.load.mixed_load import ANSWERED, FAILED, REFUSED, REJECTED, Load, Mix, hold_load
from gdino_build.load.perf_analyzer import PerfAnalyzer, write_requests
from gdino_build.load.soak import SoakPlan, run_soak
from gdino_build.load.soak_verdict import judge
from gdino_build.load.step_times import read_statistics, step_times
from gdino_build.machine import session_bytes, session_cpu_seconds
from gdino_build.profile import load_profile
from gdino_build.serve import RunningServer
from gdino_client import Client

pytestmark = pytest.mark.server

PERF_ANALYZER = Path(".venv-perf")
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


def test_what_overflowing_queues_do_not_answer_is_rejected_and_counted_so(server: RunningServer) -> None:
    burst = Load(per_s=2000.0, seconds=0.25, timeout_s=1.0)
    outcomes = asyncio.run(hold_load(server.grpc_url, MIX, burst))
    assert len(outcomes) == 500
    kinds = Counter(outcome.kind for outcome in outcomes)
    assert kinds.keys() <= {ANSWERED, REJECTED, REFUSED}, [one.message for one in outcomes if one.kind == FAILED][:3]
    assert kinds[ANSWERED]
    assert kinds[REJECTED]


def test_a_short_soak_has_no_error_and_no_restart(server: RunningServer) -> None:
    told: list[float] = []
    plan = SoakPlan(seconds=4.0, queue_size=64, at_once=32)
    run = run_soak(server, MIX, plan, lambda text, held_s: told.append(held_s))
    assert sum("triton_python_backend_stub" in command for command in run.processes_before.values()) >= 4
    assert len(run.memory_bytes) >= 10
    assert told == sorted(told)
    report = judge(run)
    assert report["requests"] == round(4 * run.load.per_s)
    assert report["answered"]
    assert report["failed"] == report["restarts"] == 0


@pytest.mark.skipif(not (PERF_ANALYZER / ".ready").is_file(), reason="make bench makes .venv-perf, 50 MB")
def test_a_turn_measures_the_bare_engine_the_original_and_the_server(server: RunningServer, tmp_path: Path) -> None:
    profile = load_profile("demo-cpu")
    write_requests(MIX.pictures, MIX.labels, tmp_path / "requests.json")
    seen: list[Path] = []
    bench = Bench(
        server=server,
        perf_analyzer=PerfAnalyzer(environment=PERF_ANALYZER),
        requests_file=tmp_path / "requests.json",
        engine=BareEngine(
            Path("out/demo-cpu/engine"), profile.openvino, profile.preprocess, MIX.pictures, MIX.labels, at_once=8
        ),
        original=seen.append,
        files=[SAMPLES / "1-landscape.jpg", SAMPLES / "2-wide.png"],
        seconds=0.2,
        log_folder=tmp_path,
    )
    bench.perf_analyzer.check()
    [turn] = measure_levels(bench, [2], lambda text: None)
    assert {path.name for path in seen} == {"1-landscape.jpg", "2-wide.png"}
    assert min(turn.engine_ms, turn.together_per_s, turn.original_per_s or 0, turn.level.times.per_s) > 0
    assert turn.level.times.p50_ms <= turn.level.times.p95_ms <= turn.level.times.p99_ms
    assert 1 <= turn.level.steps["detector"].mean_batch <= 2
    assert list(tmp_path.glob("perf-analyzer-2.*")) == [tmp_path / "perf-analyzer-2.log"]
