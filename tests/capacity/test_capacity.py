"""What a replica bears and how many a load takes, on servers whose capacity is known."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gdino_build.capacity.demand import Demand, plan_capacity
from gdino_build.capacity.knee import explain, find_knee
from gdino_build.capacity.levels import Measured, read_bench
from gdino_build.capacity.report import format_capacity, write_capacity
from gdino_core.errors import ConfigError
from tests.capacity.curves import bench

LEVELS = [1, 2, 4, 8, 16, 32, 64]


def measured(folder: Path, content: Any) -> Measured:
    (folder / "bench.json").write_text(json.dumps(content))
    return read_bench(folder / "bench.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("capacity")


@given(
    at_once=st.sampled_from(LEVELS[:-1]),
    service_s=st.floats(0.001, 10),
    noise=st.lists(st.floats(0.98, 1.02), min_size=len(LEVELS), max_size=len(LEVELS)),
)
def test_the_knee_is_where_the_server_works_on_all_that_it_can(
    folder: Path, at_once: int, service_s: float, noise: list[float]
) -> None:
    content = bench(service_s=service_s, at_once=at_once, concurrencies=LEVELS)
    for level, factor in zip(content["levels"], noise, strict=True):
        level["per_s"] *= factor
    knee = find_knee(measured(folder, content).levels)
    assert knee is not None
    assert knee.concurrency == at_once


def test_a_server_that_still_scales_has_no_knee_and_is_not_said_to_have_one(tmp_path: Path) -> None:
    found = measured(tmp_path, bench(at_once=64))
    assert find_knee(found.levels) is None
    assert "no knee: throughput still grows at 16 requests in flight" in explain(found, None)


def test_a_level_measured_at_a_bad_moment_is_no_knee(tmp_path: Path) -> None:
    content = bench(at_once=8)
    content["levels"][2]["per_s"] = content["levels"][1]["per_s"]  # 4 in flight as slow as 2
    knee = find_knee(measured(tmp_path, content).levels)
    assert knee is not None
    assert knee.concurrency == 8


def test_a_server_that_has_no_processor_left_is_told_from_one_that_waits_for_something_else(tmp_path: Path) -> None:
    busy = measured(tmp_path, bench(cores=1.9))
    assert "1.9 of 2 processors are busy, most of the time with the detector" in explain(busy, find_knee(busy.levels))
    idle = measured(tmp_path, bench(cores=0.4))
    told = explain(idle, find_knee(idle.levels))
    assert "uses 0.4 of 2 processors, and requests wait most before the detector" in told


@given(
    peak_per_s=st.floats(0.01, 1e5),
    service_s=st.floats(0.001, 10),
    utilisation=st.floats(0.1, 1),
)
def test_so_many_replicas_bear_the_load_and_one_less_does_not(
    folder: Path, peak_per_s: float, service_s: float, utilisation: float
) -> None:
    demand = Demand(peak_per_s=peak_per_s, utilisation=utilisation)
    capacity = plan_capacity(measured(folder, bench(service_s=service_s)), demand)
    assert capacity.limit.per_s == pytest.approx(4 / service_s)
    assert capacity.replicas is not None
    given_each = peak_per_s / capacity.replicas
    assert given_each <= capacity.replica_per_s * (1 + 1e-6)
    assert capacity.replicas == 1 or peak_per_s / (capacity.replicas - 1) > capacity.replica_per_s


@given(requests=st.floats(1, 1e9), peak_to_mean=st.floats(1, 20))
def test_a_day_of_requests_is_the_peak_that_it_makes(folder: Path, requests: float, peak_to_mean: float) -> None:
    found = measured(folder, bench())
    by_day = plan_capacity(found, Demand.of_a_day(requests, peak_to_mean=peak_to_mean, p95_ms=None, utilisation=0.7))
    assert by_day.replicas is not None
    # As many as a replica's requests a day go into the load, rounded up.
    assert by_day.replicas == pytest.approx(math.ceil(requests / (by_day.replica_per_day + 1)), abs=1, rel=1e-3)
    steady = plan_capacity(found, Demand.of_a_day(requests, peak_to_mean=1, p95_ms=None, utilisation=0.7))
    assert steady.replicas is not None and steady.replicas <= by_day.replicas


def test_a_bound_on_p95_costs_throughput_and_an_impossible_one_is_refused(tmp_path: Path) -> None:
    content = bench(at_once=4, service_s=0.05)
    for level, p95_ms in zip(content["levels"], (60, 80, 150, 300, 600), strict=True):
        level["p95_ms"] = p95_ms
    found = measured(tmp_path, content)
    assert plan_capacity(found, Demand()).limit.concurrency == 4
    assert plan_capacity(found, Demand(p95_ms=100)).limit.concurrency == 2
    assert plan_capacity(found, Demand(p95_ms=1000)).limit.concurrency == 4  # beyond the knee nothing is won
    with pytest.raises(ConfigError, match=r"p95 is 60 ms with 1 requests in flight, more than the 50 ms") as error:
        plan_capacity(found, Demand(p95_ms=50))
    assert "more replicas make no answer quicker" in error.value.fix


def test_levels_against_littles_law_are_named(tmp_path: Path) -> None:
    content = bench()
    consistent = plan_capacity(measured(tmp_path, content), Demand())
    assert all(
        level.mean_ms == pytest.approx(level.p50_ms) and level.obeys_little for level in consistent.measured.levels
    )
    assert "NOT CONSISTENT" not in format_capacity(consistent)
    content["levels"][3]["p50_ms"] /= 3  # as if a third of the 8 had been in flight
    assert "NOT CONSISTENT: at 8 in flight" in format_capacity(plan_capacity(measured(tmp_path, content), Demand()))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content.pop("levels"), "is no report of make bench: KeyError"),
        (lambda content: content["levels"].clear(), "has no levels"),
        (lambda content: content["levels"].append(content["levels"][0]), "has a level twice"),
        (lambda content: content["levels"][1].update(per_s=0), "per_s is 0.0 with 2 requests in flight"),
        (lambda content: content["levels"][1].update(p95_ms=float("nan")), "p95_ms is nan"),
        (lambda content: content["levels"][1].update(p95_ms=1), "p95 is 1 ms, below the median"),
    ],
)
def test_a_report_that_cannot_be_is_refused(tmp_path: Path, damage: Any, message: str) -> None:
    content = bench()
    damage(content)
    with pytest.raises(ConfigError, match=message):
        measured(tmp_path, content)


def test_without_a_measurement_it_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist") as error:
        read_bench(tmp_path / "bench.json")
    assert "make bench" in error.value.fix


@pytest.mark.parametrize("values", [{"peak_to_mean": 0.5}, {"utilisation": 1.5}])
def test_a_demand_that_cannot_be_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Demand(**values)


def test_all_three_files_are_written_and_say_the_same(tmp_path: Path) -> None:
    capacity = plan_capacity(measured(tmp_path, bench()), Demand(peak_per_s=500.0, p95_ms=100))
    as_json, as_text, picture = write_capacity(capacity, tmp_path)
    content = json.loads(as_json.read_text())
    assert content["knee_concurrency"] == 4 and content["replicas"] == math.ceil(500 / (80 * 0.7))
    assert f"take {content['replicas']} replicas, and {content['replicas'] + 1} where one may be away" in (
        as_text.read_text()
    )
    assert content["why"] in as_text.read_text()
    with Image.open(picture) as image:
        assert image.width > 500
    assert not list(tmp_path.glob("*.partial"))
