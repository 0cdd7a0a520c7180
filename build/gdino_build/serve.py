"""Serve a model repository on loopback: in the foreground, or for as long as a `with` block lasts."""

import contextlib
import http.client
import json
import os
import secrets
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gdino_build.assemble import MANIFEST_FILE_NAME
from gdino_build.drain import drain
from gdino_build.server_log import failure_reasons
from gdino_build.server_ports import HOST, ServerPorts
from gdino_build.tritonserver import find_runtime, start_process
from gdino_core.draining import DRAIN_FILE_VARIABLE
from gdino_core.errors import ServerError

START_TIMEOUT_S: Final = 300.0
STOP_TIMEOUT_S: Final = 20.0
DRAIN_TIMEOUT_S: Final = 120.0
_EXIT_TIMEOUT_S = 10  # that tritonserver waits for requests in flight
_POLL_INTERVAL_S = 0.1
_STARTING = "starting tritonserver, loading and warming up its models: {} s"
_SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps the regions that server and models exchange tensors in


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """A server that is ready.

    Attributes:
        ports: that it listens on, at 127.0.0.1.
        log_file: what it and its models print.
        pid: of the tritonserver process.
        name: that it gives itself, "triton".
        version: of tritonserver.
        start_seconds: from its start until all models were ready.
        drain_file: lets it accept no more requests, when it is there.
    """

    ports: ServerPorts
    log_file: Path
    pid: int
    name: str
    version: str
    start_seconds: float
    drain_file: Path

    @property
    def metrics_url(self) -> str:
        """Where Prometheus finds its metrics."""
        return f"http://{HOST}:{self.ports.metrics}/metrics"

    @property
    def grpc_url(self) -> str:
        """Host and port as tritonclient takes them."""
        return f"{HOST}:{self.ports.grpc}"


def serve(repository: Path, *, ports: ServerPorts, log_file: Path, cache_bytes: int = 0) -> None:
    """Serve in the foreground until SIGINT (Ctrl-C) or SIGTERM, then answer what was accepted, stop and return.

    A second signal stops at once.

    Args:
        repository: an assembled model repository.
        ports: to listen on.
        log_file: what the server and its models print; emptied first.
        cache_bytes: size of the response cache, 0 for none.

    Raises:
        ServerError: a port is taken, a model failed to load, or the server ended by itself.
    """
    with _sigterm_as_interrupt(), contextlib.suppress(KeyboardInterrupt):
        with _started(repository, ports, log_file, cache_bytes, _progress_line(_STARTING)) as (process, server):
            urls = ", ".join(f"{name} {HOST}:{port}" for name, port in vars(ports).items())
            print(
                f"tritonserver {server.version} is ready after {server.start_seconds:.1f} s: {urls}",
                flush=True,
            )
            print(f"its log is {log_file}; Ctrl-C stops it", flush=True)
            try:
                code = process.wait()
            except KeyboardInterrupt:
                _drain(server)
                raise
        raise _ended_by_itself(code, log_file)
    print("tritonserver stopped", flush=True)


def _drain(server: RunningServer) -> None:
    show = _progress_line("answering the last {} requests")
    if not drain(server.drain_file, server.metrics_url, DRAIN_TIMEOUT_S, show):
        print(f"some requests are not answered after {DRAIN_TIMEOUT_S:.0f} s", file=sys.stderr, flush=True)


@contextlib.contextmanager
def running_server(
    repository: Path,
    *,
    log_file: Path,
    ports: ServerPorts | None = None,
    cache_bytes: int = 0,
    progress: Callable[[float], None] = lambda seconds: None,
) -> Iterator[RunningServer]:
    """Start a server, give it when it is ready, and stop it when the `with` block ends.

    The server also ends when the thread that started it does, whatever kills that.

    Args:
        repository: an assembled model repository.
        log_file: what the server and its models print; emptied first.
        ports: to listen on; None chooses unused ones.
        cache_bytes: size of the response cache, 0 for none.
        progress: called with the seconds that the start has taken so far, several times a second.

    Raises:
        ServerError: a port is taken, or a model failed to load.
    """
    with _started(repository, ports or ServerPorts.unused(), log_file, cache_bytes, progress) as (_, server):
        yield server


@contextlib.contextmanager
def _started(
    repository: Path, ports: ServerPorts, log_file: Path, cache_bytes: int, progress: Callable[[float], None]
) -> Iterator[tuple[subprocess.Popen[bytes], RunningServer]]:
    if not (repository / MANIFEST_FILE_NAME).is_file():
        raise ServerError(f"{repository} is no assembled repository", fix="build it first: make repository")
    runtime = find_runtime()
    ports.check_unused()
    region_prefix = f"gdino_{os.getpid()}_{secrets.token_hex(4)}_"
    drain_file = _SHARED_MEMORY / f"{region_prefix}drain"
    started = time.monotonic()
    process = start_process(
        runtime,
        _flags(repository, ports, region_prefix, cache_bytes),
        log_file,
        {DRAIN_FILE_VARIABLE: str(drain_file)},
    )
    try:
        _wait_until_ready(process, ports.http, log_file, started, progress)
        metadata = _get_json(ports.http, "/v2")
        yield (
            process,
            RunningServer(
                ports=ports,
                log_file=log_file,
                pid=process.pid,
                name=metadata["name"],
                version=metadata["version"],
                start_seconds=time.monotonic() - started,
                drain_file=drain_file,
            ),
        )
    finally:
        _stop(process)
        for region in _SHARED_MEMORY.glob(f"{region_prefix}*"):
            region.unlink(missing_ok=True)  # left behind where a model's process was killed


def _flags(repository: Path, ports: ServerPorts, region_prefix: str, cache_bytes: int) -> list[str]:
    return [
        f"--model-repository={repository}",
        "--model-control-mode=none",
        "--disable-auto-complete-config",  # config.pbtxt says everything, and each model's process starts once
        "--strict-readiness=true",
        "--exit-on-error=true",
        f"--exit-timeout-secs={_EXIT_TIMEOUT_S}",
        f"--grpc-address={HOST}",
        f"--http-address={HOST}",
        f"--metrics-address={HOST}",
        f"--grpc-port={ports.grpc}",
        f"--http-port={ports.http}",
        f"--metrics-port={ports.metrics}",
        "--allow-gpu-metrics=false",
        "--pinned-memory-pool-byte-size=0",
        f"--backend-config=python,shm-region-prefix-name={region_prefix}",
        *([f"--cache-config=local,size={cache_bytes}"] if cache_bytes else []),
    ]


def _wait_until_ready(
    process: subprocess.Popen[bytes],
    http_port: int,
    log_file: Path,
    started: float,
    progress: Callable[[float], None],
) -> None:
    while not _is_ready(http_port):
        seconds = time.monotonic() - started
        if process.poll() is not None:
            raise _failed_to_start(process.returncode, log_file)
        if seconds > START_TIMEOUT_S:
            raise ServerError(
                f"tritonserver is not ready after {seconds:.0f} s",
                fix=f"its log says what it does: {log_file}",
            )
        progress(seconds)
        time.sleep(_POLL_INTERVAL_S)


def _is_ready(http_port: int) -> bool:
    try:
        _get_json(http_port, "/v2/health/ready")
    except (OSError, http.client.HTTPException):
        return False
    return True


def _get_json(http_port: int, path: str) -> Any:
    connection = http.client.HTTPConnection(HOST, http_port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise http.client.HTTPException(f"{path}: {response.status}")
    return json.loads(body or b"{}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    try:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=STOP_TIMEOUT_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        # Its session holds what it started, and nothing else.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _failed_to_start(code: int, log_file: Path) -> ServerError:
    reasons = failure_reasons(log_file.read_text(encoding="utf-8", errors="replace"))
    said = textwrap.indent("\n".join(reasons) or "it does not say why", "  ")
    return ServerError(
        f"tritonserver ended with exit code {code} before it was ready:\n{said}",
        fix=f"its whole log is {log_file}",
    )


def _ended_by_itself(code: int, log_file: Path) -> ServerError:
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return ServerError(f"tritonserver ended by itself with {how}", fix=f"the end of its log says why: {log_file}")


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the program as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = [(number, signal.signal(number, interrupt)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        yield
    finally:
        for number, handler in previous:
            signal.signal(number, handler)


def _progress_line(text: str) -> Callable[[float], None]:
    """Return a progress that rewrites one line of a terminal, and is silent elsewhere."""
    if not sys.stderr.isatty():
        return lambda number: None
    return lambda number: print(text.format(round(number)), end="\r", file=sys.stderr, flush=True)
