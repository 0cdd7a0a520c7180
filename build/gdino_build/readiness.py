"""Wait until a tritonserver that was started is ready, and tell what it is at until then."""

import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tritonclient.utils import InferenceServerException

from gdino_build.server_log import ANSWERING, failure_reasons, is_answering, warm_up_step
from gdino_client import Credentials
from gdino_client.channel import open_channel
from gdino_core.errors import ServerError

START_TIMEOUT_S: Final = 300.0  # of loading, and of each step of the warm-up
_ANSWER_TIMEOUT_S: Final = 15.0  # of a server that says that it listens
_ASK_TIMEOUT_S: Final = 5.0
_POLL_INTERVAL_S = 0.1


def wait_until_ready(
    process: subprocess.Popen[bytes],
    url: str,
    credentials: Credentials,
    log_file: Path,
    started: float,
    progress: Callable[[str], None],
) -> None:
    """Wait until all models are loaded and warmed up.

    Args:
        process: of tritonserver.
        url: of its gRPC service.
        credentials: of this program.
        log_file: what it prints, with verbose lines.
        started: when, by time.monotonic().
        progress: called with what the start is at, several times a second.

    Raises:
        ServerError: the server ended, or does not get on.
    """
    step, step_started = "", started
    while why := _why_not_ready(url, credentials):
        now = time.monotonic()
        if process.poll() is not None:
            raise _failed_to_start(process.returncode, log_file)
        log = log_file.read_text(encoding="utf-8", errors="replace")
        previous, step = step, ANSWERING if is_answering(log) else warm_up_step(log)
        step_started = step_started if step == previous else now
        if step == ANSWERING and now - step_started > _ANSWER_TIMEOUT_S:
            raise ServerError(
                f"tritonserver runs, and does not answer the program that started it: {why}",
                fix="[security] probe_ca, probe_cert, probe_key and probe_name are what it is asked with",
            )
        if now - step_started > START_TIMEOUT_S:
            raise ServerError(
                f"tritonserver is not ready after {now - started:.0f} s, {step} took {now - step_started:.0f} s so far",
                fix=f"its log says what it does: {log_file}",
            )
        progress(f"starting tritonserver, {step}: {now - started:.0f} s")
        time.sleep(_POLL_INTERVAL_S)


def is_ready(url: str, credentials: Credentials) -> bool:
    """Whether a server has all models loaded and warmed up."""
    return not _why_not_ready(url, credentials)


def _why_not_ready(url: str, credentials: Credentials) -> str:
    """Why a server does not say that it is ready; "" when it does."""
    # A channel of its own for each question: one that failed waits for a while before it tries again.
    with open_channel(url, credentials) as channel:
        try:
            return "" if channel.is_server_ready(client_timeout=_ASK_TIMEOUT_S) else "it says that it is not ready"
        except InferenceServerException as error:
            return str(error.message())


def _failed_to_start(code: int, log_file: Path) -> ServerError:
    reasons = failure_reasons(log_file.read_text(encoding="utf-8", errors="replace"))
    said = textwrap.indent("\n".join(reasons) or "it does not say why", "  ")
    return ServerError(
        f"tritonserver ended with exit code {code} before it was ready:\n{said}",
        fix=f"its whole log is {log_file}",
    )
