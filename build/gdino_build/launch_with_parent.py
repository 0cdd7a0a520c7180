"""Become another program that the kernel ends when its parent dies: `launch_with_parent.py PARENT_PID PROGRAM ...`.

A program of its own and not a preexec_fn: that would run Python between fork and exec, where the locks of other
threads (gRPC's, for one) may be held for ever.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h; kept across exec


def launcher() -> list[str]:
    """What to put before a program and its arguments, so that it ends with this process."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid())]


def main() -> None:
    """Ask for SIGTERM at the parent's death, and become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)  # it died before we asked
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
