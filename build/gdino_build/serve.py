"""Serve a model repository: in the foreground, or for as long as a `with` block lasts."""

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gdino_build.readiness import wait_until_ready
from gdino_build.security.access import Access
from gdino_build.security.settings import SecuritySettings
from gdino_build.server_ports import HOST, ServerPorts, host_port
from gdino_build.terminal_line import show_line
from gdino_build.tritonserver import find_runtime, start_process
from gdino_client.channel import open_channel
from gdino_core.draining import DRAIN_FILE_VARIABLE, drain
from gdino_core.errors import ServerError
from gdino_core.manifest import MANIFEST_FILE_NAME

STOP_TIMEOUT_S: Final = 20.0
DRAIN_TIMEOUT_S: Final = 120.0
_EXIT_TIMEOUT_S = 10  # that tritonserver waits for requests in flight
_OPEN: Final = Access()  # to all who reach loopback
_SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps the regions that server and models exchange tensors in


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """A server that is ready.

    Attributes:
        ports: that it listens on.
        access: whom it answers, and at which addresses it listens.
        log_file: what it and its models print.
        pid: of the tritonserver process.
        name: that it gives itself, "triton".
        version: of tritonserver.
        start_seconds: from its start until all models were ready.
        drain_file: lets it accept no more requests, when it is there.
    """

    ports: ServerPorts
    access: Access
    log_file: Path
    pid: int
    name: str
    version: str
    start_seconds: float
    drain_file: Path

    @property
    def metrics_url(self) -> str:
        """Where Prometheus finds its metrics."""
        return f"http://{host_port(self.access.settings.metrics_address, self.ports.metrics)}/metrics"

    @property
    def grpc_url(self) -> str:
        """Host and port as tritonclient takes them."""
        return host_port(self.access.settings.address, self.ports.grpc)


def serve(
    repository: Path,
    *,
    ports: ServerPorts,
    log_file: Path,
    access: Access = _OPEN,
    cache_bytes: int = 0,
    drain_timeout_s: float = DRAIN_TIMEOUT_S,
) -> None:
    """Serve in the foreground until SIGINT (Ctrl-C) or SIGTERM, then answer what was accepted, stop and return.

    A second signal kills the server.

    Args:
        repository: an assembled model repository.
        ports: to listen on.
        log_file: what the server and its models print; emptied first.
        access: whom it answers, and at which addresses it listens.
        cache_bytes: size of the response cache, 0 for none.
        drain_timeout_s: longest that the answers to what was accepted are waited for.

    Raises:
        ServerError: a port is taken, a model failed to load, the server ended by itself, or requests were left
            unanswered.
    """
    with sigterm_as_interrupt(), contextlib.suppress(KeyboardInterrupt):
        with _started(repository, ports, access, log_file, cache_bytes, show_line) as (process, server):
            show_line("")
            urls = ", ".join(f"{name} {where}" for name, where in listeners(access.settings, ports).items())
            print(
                f"tritonserver {server.version} is ready after {server.start_seconds:.1f} s: {urls}",
                flush=True,
            )
            print(f"its log is {log_file}; Ctrl-C stops it", flush=True)
            try:
                code = process.wait()
            except KeyboardInterrupt:
                _finish(process, server, drain_timeout_s)
                raise
        raise _ended_by_itself(code, log_file)
    print("tritonserver stopped", flush=True)


def listeners(settings: SecuritySettings, ports: ServerPorts) -> dict[str, str]:
    """Address and port of each service, by its name."""
    found = {"grpc": f"{settings.address}:{ports.grpc}", "metrics": f"{settings.metrics_address}:{ports.metrics}"}
    return found | ({"http": f"{HOST}:{ports.http}"} if ports.http else {})


def _finish(process: subprocess.Popen[bytes], server: RunningServer, timeout_s: float) -> None:
    try:
        is_done = drain(
            server.drain_file,
            server.metrics_url,
            timeout_s,
            lambda requests: show_line(f"answering the last {requests} requests"),
        )
    except KeyboardInterrupt:
        _kill(process)
        raise ServerError(
            "a second signal killed tritonserver before all requests were answered", fix="send one, and wait"
        ) from None
    show_line("")
    if not is_done:
        raise ServerError(
            f"requests were not answered within {timeout_s:.0f} s after the signal to stop",
            fix=f"the server's log may say why: {server.log_file}",
        )


@contextlib.contextmanager
def running_server(
    repository: Path,
    *,
    log_file: Path,
    ports: ServerPorts | None = None,
    access: Access = _OPEN,
    cache_bytes: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[RunningServer]:
    """Start a server, give it when it is ready, and stop it when the `with` block ends.

    The server also ends when the thread that started it does, whatever kills that.

    Args:
        repository: an assembled model repository.
        log_file: what the server and its models print; emptied first.
        ports: to listen on; None chooses unused ones.
        access: whom it answers, and at which addresses it listens.
        cache_bytes: size of the response cache, 0 for none.
        progress: called with what the start is at, several times a second.

    Raises:
        ServerError: a port is taken, or a model failed to load.
    """
    with _started(repository, ports or ServerPorts.unused(), access, log_file, cache_bytes, progress) as (_, server):
        yield server


@contextlib.contextmanager
def _started(
    repository: Path,
    ports: ServerPorts,
    access: Access,
    log_file: Path,
    cache_bytes: int,
    progress: Callable[[str], None],
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
        _flags(repository, ports, access, region_prefix, cache_bytes),
        log_file,
        {DRAIN_FILE_VARIABLE: str(drain_file)},
    )
    try:
        url = host_port(access.settings.address, ports.grpc)
        wait_until_ready(process, url, access.credentials, log_file, started, progress)
        for region in _SHARED_MEMORY.glob(f"{region_prefix}*"):
            region.chmod(0o600)  # pictures go through them, and Triton lets all users of the machine read
        with open_channel(url, access.credentials, access.control_headers) as channel:
            channel.update_log_settings({"log_verbose_level": 0})
            metadata = channel.get_server_metadata()
        yield (
            process,
            RunningServer(
                ports=ports,
                access=access,
                log_file=log_file,
                pid=process.pid,
                name=metadata.name,
                version=metadata.version,
                start_seconds=time.monotonic() - started,
                drain_file=drain_file,
            ),
        )
    finally:
        _stop(process)
        for region in _SHARED_MEMORY.glob(f"{region_prefix}*"):
            region.unlink(missing_ok=True)  # left behind where a model's process was killed


def _flags(repository: Path, ports: ServerPorts, access: Access, region_prefix: str, cache_bytes: int) -> list[str]:
    return [
        f"--model-repository={repository}",
        "--model-control-mode=none",
        "--disable-auto-complete-config",  # config.pbtxt says everything, and each model's process starts once
        "--strict-readiness=true",
        "--exit-on-error=true",
        f"--exit-timeout-secs={_EXIT_TIMEOUT_S}",
        "--log-verbose=1",  # tells of the warm-up; until the server is ready
        f"--grpc-port={ports.grpc}",
        f"--metrics-port={ports.metrics}",
        *([f"--http-address={HOST}", f"--http-port={ports.http}"] if ports.http else ["--allow-http=false"]),
        *access.flags(http=ports.http is not None),
        "--allow-gpu-metrics=false",
        "--pinned-memory-pool-byte-size=0",
        f"--backend-config=python,shm-region-prefix-name={region_prefix}",
        *([f"--cache-config=local,size={cache_bytes}"] if cache_bytes else []),
    ]


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    try:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=STOP_TIMEOUT_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    # Its session holds what it started, and nothing else.
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _ended_by_itself(code: int, log_file: Path) -> ServerError:
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return ServerError(f"tritonserver ended by itself with {how}", fix=f"the end of its log says why: {log_file}")


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the program as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = [(number, signal.signal(number, interrupt)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        yield
    finally:
        for number, handler in previous:
            signal.signal(number, handler)
