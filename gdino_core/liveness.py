"""Tell whether a server that runs can still answer, without sending it a picture.

Triton goes on saying that it is ready when the process of one of its Python models has ended, and every request that
needs the model fails from then on (seen with 2.51). Triton does not wait for such a process, so Linux keeps it as a
zombie: that is what is looked for.

    python3 -m gdino_core.liveness --metrics-url http://127.0.0.1:8002/metrics
"""

import argparse
import contextlib
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gdino_core.errors import ServerError
from gdino_core.program import exit_code_of

STUB_NAME: Final = "triton_python_backend_stub"  # the program that runs a Python model
_KEPT_OF_NAME = 15  # characters of a program's name, in Linux


def check_answering(metrics_url: str, timeout_s: float) -> None:
    """Check that the server answers.

    Args:
        metrics_url: of its metrics, which need no model.
        timeout_s: longest to wait.

    Raises:
        ServerError: it does not.
    """
    try:
        with urllib.request.urlopen(metrics_url, timeout=timeout_s) as response:
            response.read()
    except (OSError, urllib.error.URLError) as error:
        raise ServerError(f"no metrics from {metrics_url}: {error}", fix="restart the server") from error


def check_models(processes: Path = Path("/proc"), server: int | None = None) -> None:
    """Check that no process of a Python model has ended while its server runs.

    Args:
        processes: as Linux tells of them.
        server: process id of the server; None looks at the models of all servers, such as the one in a container.

    Raises:
        ServerError: one has ended.
    """
    for folder in processes.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # any may go while we look
            # The name, in brackets, may hold anything, brackets and spaces too.
            before, _, after = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")
            state, parent = after.split()[:2]
            is_stub = before.partition("(")[2] == STUB_NAME[:_KEPT_OF_NAME]
            if is_stub and state == "Z" and server in (None, int(parent)):
                raise ServerError(f"process {folder.name} of a model has ended", fix="restart the server")


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the server beside this program; 1 where it must be restarted."""
    parser = argparse.ArgumentParser(prog="python3 -m gdino_core.liveness", description=__doc__.splitlines()[0])
    parser.add_argument("--metrics-url", required=True, help="of the server")
    parser.add_argument("--timeout-seconds", type=float, default=5.0, help="longest to wait (default: 5)")
    parser.add_argument("--server", type=int, help="its process id (default: all that are seen, as in a container)")
    given = parser.parse_args(arguments)

    def work() -> None:
        check_answering(given.metrics_url, given.timeout_seconds)
        check_models(server=given.server)

    return exit_code_of(work)


if __name__ == "__main__":
    sys.exit(main())
