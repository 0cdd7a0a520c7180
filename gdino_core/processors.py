"""How many processors this process may use: threads and instances are counted by it."""

import os
from pathlib import Path
from typing import Final

CPU_QUOTA_FILE: Final = Path("/sys/fs/cgroup/cpu.max")  # of the container; "max 100000" or "150000 100000"


def count_processors(quota_file: Path = CPU_QUOTA_FILE) -> int:
    """Processors that the process may run on, at most as many as its container gets the time of, and at least 1.

    Args:
        quota_file: of cgroup v2; where there is none, or it cannot be read, there is no quota.
    """
    available = len(os.sched_getaffinity(0))
    try:
        quota_us, period_us = map(int, quota_file.read_text(encoding="utf-8").split())
    except (OSError, ValueError):
        return available
    # Threads for a part of a processor would be paused most of the time, and the others wait for them.
    return max(1, min(available, quota_us // period_us))
