"""Let a running server accept no more requests and answer those that it has accepted, before it is stopped.

Triton has no such state. When it is told to stop it refuses what is on its way from one step to the next, so whoever
stops it makes a file first, which the first step looks for, and waits until all that was accepted is answered.

Run as a program it does both for the server beside it, as the last act of a container:

    python3 -m gdino_core.draining --metrics-url http://127.0.0.1:8002/metrics
"""

import argparse
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from gdino_core.errors import ServerError, ServerStopping
from gdino_core.program import exit_code_of

DRAIN_FILE_VARIABLE: Final = "GDINO_DRAIN_FILE"  # environment variable of the server; names the file
# Requests that wait, and that run.
_WORKING: Final = ("nv_inference_pending_request_count", "gdino_preprocess_running", "gdino_engine_running")
POLL_INTERVAL_S: Final = 0.1
QUIET_POLLS: Final = 5  # between two steps, and in the last one, a request is in none of these numbers


def check_accepting() -> None:
    """Refuse a request while the file is there.

    Raises:
        ServerStopping: it is.
    """
    path = os.environ.get(DRAIN_FILE_VARIABLE)
    if path and Path(path).exists():
        raise ServerStopping("the server is stopping and accepts no more requests", fix="send it to another server")


def drain(
    drain_file: Path, metrics_url: str, timeout_s: float, progress: Callable[[int], None] = lambda requests: None
) -> bool:
    """Make the file that lets the server refuse new requests, and wait until it has none left.

    Args:
        drain_file: that the server was started with.
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Drain the server that the environment names; 1 where requests are left."""
    parser = argparse.ArgumentParser(prog="python3 -m gdino_core.draining", description=__doc__.splitlines()[0])
    parser.add_argument("--metrics-url", required=True, help="of the server")
    parser.add_argument(
        "--settle-seconds",
        type=float,
        default=0.0,
        help="answer as before for so long, until all who send requests know that the server goes (default: 0)",
    )
    parser.add_argument("--timeout-seconds", type=float, default=120.0, help="longest to wait then (default: 120)")
    given = parser.parse_args(arguments)

    def work() -> None:
        drain_file = os.environ.get(DRAIN_FILE_VARIABLE)
        if not drain_file:
            raise ServerError(f"{DRAIN_FILE_VARIABLE} is not set", fix="set it to the server's, a file in /dev/shm")
        time.sleep(given.settle_seconds)
        if not drain(Path(drain_file), given.metrics_url, given.timeout_seconds):
            raise ServerError(
                f"requests are left after {given.timeout_seconds:g} s", fix="give more time, or let queues be shorter"
            )

    return exit_code_of(work)


if __name__ == "__main__":
    sys.exit(main())
