"""Run a program that serves a web page on loopback, for as long as a `with` block lasts."""

import contextlib
import http.client
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gdino_build.launch_with_parent import launcher
from gdino_build.server_ports import HOST, check_port_unused
from gdino_core.errors import ServerError

_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class WebProgram:
    """What to run.

    Attributes:
        command: program and arguments.
        port: that it listens on, at 127.0.0.1.
        port_variable: environment variable that chooses another.
        health_path: answered with 200 when it is ready.
        log_file: gets what it prints; emptied first.
        environment: variables beside those of this process.
    """

    command: Sequence[str]
    port: int
    port_variable: str
    health_path: str
    log_file: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Of its page."""
        return f"http://{HOST}:{self.port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Start it, give its process when it is ready, and stop it when the block ends.

        Raises:
            ServerError: the port is taken, or it does not start.
        """
        check_port_unused(self.port_variable, self.port)  # else the other's answer would be taken for its own
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("wb") as log:
            # A session of its own, so that Ctrl-C in a terminal reaches us alone and we stop it in order.
            process = subprocess.Popen(
                [*launcher(), *self.command],
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait_until_ready(process)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def check_running(self, process: subprocess.Popen[bytes]) -> None:
        """Refuse to go on when it has ended.

        Raises:
            ServerError: with the last that it said.
        """
        if process.poll() is not None:
            raise self._error(f"ended with exit code {process.returncode}")

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            self.check_running(process)
            with contextlib.suppress(OSError, http.client.HTTPException):
                urllib.request.urlopen(f"{self.url}{self.health_path}", timeout=5).close()
                return
            time.sleep(_POLL_S)
        raise self._error(f"is not ready at {self.url} after {_START_TIMEOUT_S:.0f} s")

    def _error(self, what: str) -> ServerError:
        said = self.log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        return ServerError(f"{self.command[0]} {what}: {' | '.join(said)}", fix=f"its whole log is {self.log_file}")
