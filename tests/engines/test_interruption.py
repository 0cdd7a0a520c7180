"""A build can be stopped at any time; nothing is left of it, and no process goes on compiling."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.build_program import BUILD
from tests.engines.conftest import Variants

WAIT_SECONDS = 60


@pytest.fixture
def build(demo: Variants, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A build of the demo's detector that has begun to compile; it would take half a minute."""
    command = [sys.executable, "-c", BUILD, str(demo.path("fp16", "detector")), str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        log = tmp_path / ".detector.partial" / "detector.log"
        wait_until(lambda: log.is_file() and process.poll() is None)
        yield process
        process.kill()


def wait_until(condition: object) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def compiling_child(process: subprocess.Popen[str]) -> int:
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
    return int(child)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # a zombie waits only for its parent to ask for its exit code


def test_ctrl_c_ends_the_compiling_process_at_once_and_leaves_nothing(
    build: subprocess.Popen[str], tmp_path: Path
) -> None:
    child = compiling_child(build)
    build.send_signal(signal.SIGINT)
    assert build.wait(WAIT_SECONDS) == 130
    assert not is_running(child)
    assert list(tmp_path.iterdir()) == []


def test_when_the_caller_is_killed_the_compiling_process_ends_too(build: subprocess.Popen[str], tmp_path: Path) -> None:
    child = compiling_child(build)
    build.kill()
    build.wait(WAIT_SECONDS)
    wait_until(lambda: not is_running(child))
    assert not (tmp_path / "detector.plan").exists()


def test_a_compiling_process_that_the_kernel_kills_becomes_an_error_that_speaks_of_memory(
    build: subprocess.Popen[str], tmp_path: Path
) -> None:
    os.kill(compiling_child(build), signal.SIGKILL)
    _, text = build.communicate(timeout=WAIT_SECONDS)
    assert build.returncode == 1
    assert "was killed by SIGKILL" in text
    assert "if the machine ran out of memory" in text
    assert [path.name for path in tmp_path.iterdir()] == ["detector.log"]
