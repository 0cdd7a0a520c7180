"""Memory and latency: all processes of a session count, and contenders take turns."""

import os
import subprocess
import sys
from pathlib import Path

from gdino_build.accuracy.latency import interleaved_latency_ms
from gdino_build.machine import describe_hardware, peak_bytes, session_peak_bytes

_MIB = 2**20
# Takes 64 MiB and gives them back, as does a child of its; then says so and waits.
_TAKER = """
import os, subprocess, sys
taken = b"x" * (64 * 2**20)
del taken
if sys.argv[1] == "parent":
    command = [sys.executable, "-c", sys.argv[2], "child", ""]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as child:
        child.stdout.readline()
        print("taken", flush=True)
        sys.stdin.read()
else:
    print("taken", flush=True)
    sys.stdin.read()
"""


def test_memory_that_was_given_back_and_that_of_children_counts() -> None:
    command = [sys.executable, "-c", _TAKER, "parent", _TAKER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"taken\n"
        own, all_of_them = peak_bytes(process.pid), session_peak_bytes(process.pid)
        process.communicate()
    assert 64 * _MIB < own < 120 * _MIB
    assert 128 * _MIB < all_of_them < 240 * _MIB


def test_a_process_that_has_ended_takes_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert (peak_bytes(process.pid), session_peak_bytes(process.pid)) == (0, 0)


def test_the_hardware_line_names_no_host() -> None:
    line = describe_hardware()
    assert f"{len(os.sched_getaffinity(0))} cores" in line
    assert os.uname().nodename not in line


def test_contenders_take_turns_with_the_same_pictures_and_the_first_round_is_not_timed() -> None:
    calls: list[tuple[str, str]] = []
    pictures = [Path("one"), Path("two"), Path("three")]
    contenders = {name: lambda picture, name=name: calls.append((name, picture.name)) for name in ("a", "b")}
    latency = interleaved_latency_ms(contenders, pictures, rounds=2)
    assert set(latency) == {"a", "b"}
    assert [picture for _, picture in calls[::2]] == [picture.name for picture in pictures] * 3
    assert [picture for _, picture in calls[1::2]] == [picture.name for picture in pictures] * 3
    firsts = [name for name, _ in calls[::2]]
    assert firsts == ["a", "b"] * 4 + ["a"]
