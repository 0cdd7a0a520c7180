"""Let a running server answer all that it has accepted, and accept no more, before it is stopped."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

# Requests that wait, and that run.
_WORKING: Final = ("nv_inference_pending_request_count", "gdino_preprocess_running", "gdino_engine_running")
POLL_INTERVAL_S: Final = 0.1
QUIET_POLLS: Final = 5  # between two steps, and in the last one, a request is in none of these numbers


def drain(
    drain_file: Path, metrics_url: str, timeout_s: float, progress: Callable[[int], None] = lambda requests: None
) -> bool:
    """Make the file that lets the server refuse new requests, and wait until it has none left.

    Args:
        drain_file: that the server was started with; see gdino_core.draining.
        metrics_url: of its metrics, such as http://127.0.0.1:8002/metrics.
        timeout_s: longest to wait.
        progress: called with the number of requests that are left, several times a second.

    Returns:
        Whether all are answered; False when the time is over.
    """
    drain_file.touch()
    deadline = time.monotonic() + timeout_s
    quiet = 0
    while quiet < QUIET_POLLS:
        if time.monotonic() > deadline:
            return False
        try:
            left = count_requests(metrics_url)
        except (OSError, urllib.error.URLError):
            return True  # the server has ended
        progress(left)
        quiet = 0 if left else quiet + 1
        time.sleep(POLL_INTERVAL_S)
    return True


def count_requests(metrics_url: str) -> int:
    """How many requests wait before a step, or are worked on by a long one."""
    with urllib.request.urlopen(metrics_url, timeout=5) as response:
        lines = response.read().decode().splitlines()
    return sum(round(float(line.rsplit(" ", 1)[1])) for line in lines if line.startswith(_WORKING))
