"""The report has what others read, and its ratios are those of its figures."""

import json
from pathlib import Path

import pytest
from PIL import Image

from gdino_build.load.bench_figures import BenchReport, Level, Turn
from gdino_build.load.perf_analyzer import LevelTimes
from gdino_build.load.report import format_report, write_report
from gdino_build.load.step_times import StepTimes

STEPS = ("detector", "postprocess", "preprocess", "text_encoder")


def level(concurrency: int, per_s: float, p50_ms: float) -> Level:
    return Level(
        times=LevelTimes(concurrency=concurrency, per_s=per_s, p50_ms=p50_ms, p95_ms=2 * p50_ms, p99_ms=3 * p50_ms),
        steps={
            name: StepTimes(queue_ms=1.0, compute_ms=2.0, mean_batch=1.5, requests=9, from_cache=0) for name in STEPS
        },
        cores=1.9,
        memory_bytes=512 << 20,
    )


def report(*, original_per_s: float | None = None) -> BenchReport:
    """One client, then 16, three times; the machine is slower and slower."""
    turns = [
        (level(1, 40.0, 24.0), 20.0, 80.0),
        (level(16, 72.0, 220.0), 21.0, 80.0),
        (level(1, 28.0, 35.0), 30.0, 60.0),
        (level(16, 45.0, 350.0), 30.0, 50.0),
        (level(1, 15.0, 66.0), 60.0, 30.0),
        (level(16, 20.0, 800.0), 62.0, 25.0),
    ]
    return BenchReport(
        hardware="a machine",
        profile="demo-cpu",
        pictures=3,
        labels=24,
        at_once=32,
        turns=[
            Turn(level=one, engine_ms=engine_ms, together_per_s=together, original_per_s=original_per_s)
            for one, engine_ms, together in turns
        ],
    )


def test_each_level_is_compared_with_what_was_measured_just_before_it() -> None:
    found = report(original_per_s=10.0).to_dict()
    assert found["served_over_engine"] == pytest.approx(45 / 50)  # of 72 / 80, 45 / 50 and 20 / 25
    assert found["served_over_original"] == pytest.approx(45 / 10)
    assert found["overhead_ms_p50"] == pytest.approx(35 - 30)  # of 4, 5 and 6
    assert found["engine_at_once"] == 32
    assert [one["concurrency"] for one in found["levels"]] == [1, 16]
    assert [one["per_s"] for one in found["levels"]] == [28, 45]
    wanted = {"concurrency", "per_s", "p50_ms", "p95_ms", "p99_ms", "mean_batch", "steps"}
    assert all(wanted <= one.keys() for one in found["levels"])
    assert found["levels"][0]["steps"]["detector"] == {"queue_ms": 1.0, "compute_ms": 2.0}


def test_all_three_files_are_written_with_and_without_the_original(tmp_path: Path) -> None:
    for original in (None, 10.0):
        found = report(original_per_s=original).to_dict()
        as_json, as_text, picture = write_report(found, tmp_path)
        assert json.loads(as_json.read_text()) == found
        assert as_text.read_text() == format_report(found)
        assert ("the original in a loop" in as_text.read_text()) == bool(original)
        with Image.open(picture) as image:
            assert image.width > 500
    assert not list(tmp_path.glob("*.partial"))
