"""Whoever waits for a build sees how far it is."""

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

from tests.engines.build_program import BUILD


def test_a_terminal_shows_each_phase_and_how_much_of_it_is_done(small_detector: Path, tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 120))  # it has no columns otherwise, and nothing would be drawn
    command = [sys.executable, "-c", BUILD, str(small_detector), str(tmp_path)]
    process = subprocess.Popen(command, stderr=end)
    os.close(end)
    text = b""
    try:
        while piece := os.read(terminal, 65536):
            text += piece
    except OSError:  # Linux's way to say that the other end is closed
        pass
    os.close(terminal)
    assert process.wait() == 0
    shown = text.decode()
    assert "Building engine: 1/6" in shown
    assert "Determining refit engines" in shown  # the phase that takes most of the time


def test_a_file_gets_no_bars(small_detector: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILD, str(small_detector), str(tmp_path)]
    assert subprocess.run(command, stderr=subprocess.PIPE, check=True).stderr == b""
