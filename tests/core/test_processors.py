import os
from pathlib import Path

import pytest

from gdino_core.processors import count_processors


@pytest.mark.parametrize(
    ("quota", "allowed"),
    [("max 100000", None), ("100000 100000", 1), ("50000 100000", 1), ("190000 100000", 1), ("9900000 100000", None)],
)
def test_a_container_has_no_more_processors_than_its_quota(tmp_path: Path, quota: str, allowed: int | None) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert count_processors(tmp_path / "cpu.max") == (allowed or len(os.sched_getaffinity(0)))


def test_without_a_quota_those_count_that_the_process_may_run_on(tmp_path: Path) -> None:
    mine = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mine)})
        assert count_processors(tmp_path / "none") == 1
    finally:
        os.sched_setaffinity(0, mine)
