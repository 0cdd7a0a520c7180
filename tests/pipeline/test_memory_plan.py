"""A profile whose batches do not fit the memory is refused before it is served, by what was measured."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gdino_build.machine import memory_limit_bytes
from gdino_build.memory.cost import BucketCost, Peak, fit_costs
from gdino_build.memory.measure import batches_to_measure
from gdino_build.memory.plan import (
    PLAN_FILE_NAME,
    MemoryPlan,
    check_plan,
    format_plan,
    full_queues_bytes,
    read_plan,
)
from gdino_build.profile import load_profile
from gdino_build.serving import ServingSettings
from gdino_core.errors import ConfigError

MIB = 1 << 20
PLAN = MemoryPlan(
    onnx_sha256="a" * 64,
    settings={"openvino_threads": "2"},
    limit_bytes=2000 * MIB,
    rest_bytes=200 * MIB,
    waiting_bytes=100 * MIB,
    kept_bytes=100 * MIB,
    costs=[
        BucketCost(bucket=(128, 128), base_bytes=400 * MIB, picture_bytes=50 * MIB),
        BucketCost(bucket=(128, 256), base_bytes=400 * MIB, picture_bytes=100 * MIB),
    ],
)  # 1600 MiB without the margin, 1200 of them for pictures and bases


def test_a_line_lies_over_all_peaks_of_its_bucket() -> None:
    peaks = [
        Peak(bucket=(64, 64), batch=batch, peak_bytes=100 + 10 * batch + bump)
        for batch, bump in ((1, 0), (2, 6), (4, 0))
    ]
    [cost] = fit_costs(peaks)
    assert all(cost.bytes_at(peak.batch) >= peak.peak_bytes - 1 for peak in peaks)  # rounded to whole bytes
    exact = [Peak(bucket=(64, 64), batch=batch, peak_bytes=100 + 10 * batch) for batch in (1, 2, 4)]
    assert fit_costs(exact) == [BucketCost(bucket=(64, 64), base_bytes=100, picture_bytes=10)]


def test_the_largest_batch_fits_with_the_margin_and_one_more_does_not() -> None:
    assert PLAN.largest_batch == 8
    for batch in (8, 9):
        used = PLAN.bytes_at(batch) + PLAN.rest_bytes + PLAN.waiting_bytes
        assert (used <= 0.8 * PLAN.limit_bytes) == (batch == 8)
    assert PLAN.instances(1) == 2  # 600 MiB each
    check_plan(PLAN, 8)
    assert "largest batch in any bucket: 8" in format_plan(PLAN, 8)


@pytest.mark.parametrize(
    ("limit_mib", "said"),
    [
        (2000, r"set \[engine\] max_batch_size to 8, lower \[serving\] max_queue_size"),
        (500, "choose smaller buckets, lower"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(limit_mib: int, said: str) -> None:
    with pytest.raises(
        ConfigError,
        match=rf"batches of 9 pictures of 128x256 take 1700 MiB, 100 MiB of it queues; of {limit_mib} MiB",
    ) as caught:
        check_plan(replace(PLAN, limit_bytes=limit_mib * MIB), 9)
    assert caught.match(said)


def test_full_queues_hold_a_picture_for_each_prompt_of_the_longest_lists() -> None:
    preprocess = load_profile("demo-cpu").preprocess
    waiting = full_queues_bytes(preprocess, ServingSettings(max_queue_size=10), text_dim=128)
    pixels = 128 * 256 * 3
    before, after = pixels + 3 * 256 * 4, pixels + 3 * 256 * 4 + 256 * 128 * 4
    assert waiting == 2 * 10 * preprocess.max_prompts * (before + after)  # two priorities
    assert full_queues_bytes(preprocess, ServingSettings(max_queue_size=0), text_dim=128) == 0


def test_a_plan_is_read_back_and_holds_for_its_own_engine_only(tmp_path: Path) -> None:
    assert read_plan(tmp_path) is None
    (tmp_path / PLAN_FILE_NAME).write_text(json.dumps(PLAN.to_dict()))
    found = read_plan(tmp_path)
    assert found == PLAN
    assert found.is_of(PLAN.onnx_sha256, PLAN.settings)
    assert not found.is_of("b" * 64, PLAN.settings)
    assert not found.is_of(PLAN.onnx_sha256, {"openvino_threads": "1"})
    for damaged in ("{", "{}", "[]"):
        (tmp_path / PLAN_FILE_NAME).write_text(damaged)
        with pytest.raises(ConfigError, match="is no memory plan"):
            read_plan(tmp_path)


def test_the_limit_is_that_of_the_container_where_it_has_one(tmp_path: Path) -> None:
    meminfo, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    meminfo.write_text("MemFree: 5 kB\nMemTotal:       1000 kB\n")
    assert memory_limit_bytes(limit, meminfo) == 1_024_000
    for content, expected in (("max\n", 1_024_000), ("2048\n", 2048), ("9999999\n", 1_024_000)):
        limit.write_text(content)
        assert memory_limit_bytes(limit, meminfo) == expected
    meminfo.write_text("MemTotal:  16384000 kB\n")
    for content, expected in (("max", 16384000 * 1024), ("2147483648", 2 << 30)):
        limit.write_text(content)
        assert memory_limit_bytes(limit, meminfo) == expected


@pytest.mark.parametrize(("largest", "batches"), [(1, [1, 2]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_batches_are_doubled_up_to_the_largest(largest: int, batches: list[int]) -> None:
    assert batches_to_measure(largest) == batches
