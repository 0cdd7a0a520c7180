"""Wait until a tritonserver that was started is ready, and tell what it is at until then."""

import http.client
import json
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from gdino_build.server_log import failure_reasons, warm_up_step
from gdino_build.server_ports import HOST
from gdino_core.errors import ServerError

START_TIMEOUT_S: Final = 300.0  # of loading, and of each step of the warm-up
_POLL_INTERVAL_S = 0.1


def wait_until_ready(
    process: subprocess.Popen[bytes],
    http_port: int,
    log_file: Path,
    started: float,
    progress: Callable[[str], None],
) -> None:
    """Wait until all models are loaded and warmed up.

    Args:
        process: of tritonserver.
        http_port: that it listens on.
        log_file: what it prints, with verbose lines.
        started: when, by time.monotonic().
        progress: called with what the start is at, several times a second.

    Raises:
        ServerError: the server ended, or does not get on.
    """
    step, step_started = "", started
    while not is_ready(http_port):
        now = time.monotonic()
        if process.poll() is not None:
            raise _failed_to_start(process.returncode, log_file)
        previous, step = step, warm_up_step(log_file.read_text(encoding="utf-8", errors="replace"))
        step_started = step_started if step == previous else now
        if now - step_started > START_TIMEOUT_S:
            raise ServerError(
                f"tritonserver is not ready after {now - started:.0f} s, {step} took {now - step_started:.0f} s so far",
                fix=f"its log says what it does: {log_file}",
            )
        progress(f"starting tritonserver, {step}: {now - started:.0f} s")
        time.sleep(_POLL_INTERVAL_S)


def is_ready(http_port: int) -> bool:
    """Whether a server on loopback has all models loaded and warmed up."""
    try:
        ask_http(http_port, "/v2/health/ready")
    except (OSError, http.client.HTTPException):
        return False
    return True


def ask_http(http_port: int, path: str, content: Any = None) -> Any:
    """Ask a server on loopback: GET, or POST of `content` as JSON. Returns the answer, {} where it is empty.

    Raises:
        OSError: nothing listens there.
        HTTPException: the answer is not 200.
    """
    connection = http.client.HTTPConnection(HOST, http_port, timeout=5)
    try:
        if content is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, json.dumps(content))
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise http.client.HTTPException(f"{path}: {response.status}")
    return json.loads(body or b"{}")


def _failed_to_start(code: int, log_file: Path) -> ServerError:
    reasons = failure_reasons(log_file.read_text(encoding="utf-8", errors="replace"))
    said = textwrap.indent("\n".join(reasons) or "it does not say why", "  ")
    return ServerError(
        f"tritonserver ended with exit code {code} before it was ready:\n{said}",
        fix=f"its whole log is {log_file}",
    )
