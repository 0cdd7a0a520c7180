"""Run another command of this project; what it prints goes to a file, and is shown when it fails."""

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from gdino_core.errors import ServerError

_POLL_S = 0.2
_SHOWN_LINES = 15
_SHOWN_CHARACTERS = 100  # of what a command is at: a longer line would wrap, and could not be rewritten
GDINO_BUILD = (sys.executable, "-m", "gdino_build.cli")


@contextlib.contextmanager
def alone(folder: Path, progress: Callable[[str], None]) -> Iterator[int]:
    """Let one deployment at a time work in a folder, while a `with` block lasts.

    What a deployment started goes on when that is killed. It has inherited the lock, so that the next waits for it.

    Args:
        folder: of the profile; made when missing.
        progress: called several times a second while another is waited for.

    Yields:
        The lock's file descriptor, for `run_command`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "deploy.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress("waiting for what another make deploy has begun")
                time.sleep(_POLL_S)
        yield lock.fileno()


def run_command(
    command: Sequence[str],
    log_file: Path,
    lock: int,
    progress: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a command to its end.

    Args:
        command: program and arguments.
        log_file: gets what it prints; emptied first.
        lock: file descriptor from `alone`.
        progress: called several times a second with its last line.
        environment: its variables; None: those of this program.

    Raises:
        ServerError: it failed; its last lines are in the message.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[lock],
            env=environment,
        )
        try:
            while process.poll() is None:
                progress(last_line(log_file))
                time.sleep(_POLL_S)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode:
        raise ServerError(
            f"{' '.join(map(os.fspath, command))} failed:\n{last_lines(log_file, _SHOWN_LINES)}",
            fix=f"mend it, and run make deploy again, which goes on there; all of it is in {log_file}",
        )


def last_line(file: Path) -> str:
    """What a program is at: the last line of its log, shortened to one of a terminal."""
    return last_lines(file, 1)[:_SHOWN_CHARACTERS]


def last_lines(file: Path, count: int) -> str:
    """The last lines of a log, without the rewritten states of progress bars."""
    text = file.read_bytes().decode("utf-8", errors="replace")  # read_text would make lines of those states
    lines = [line.rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return "\n".join([line for line in lines if line][-count:])
