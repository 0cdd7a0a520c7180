"""The server as a container of docker/compose.yaml, with Prometheus and Grafana beside it."""

import contextlib
import os
import secrets
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from gdino_build.deployment.command_line import run_command
from gdino_build.deployment.server_record import ServerRecord, read_record, write_record
from gdino_build.server_ports import ServerPorts
from gdino_build.whole_file import write_private
from gdino_core.errors import ConfigError, ServerError

COMPOSE: Final = ("docker", "compose", "--env-file", "docker/versions.env", "--file", "docker/compose.yaml")
START_TIMEOUT_S: Final = 1800  # of pulling, building and warming up
_RECORD = "compose.json"
_PASSWORD = "grafana-password"


def check_docker() -> None:
    """Check that there is a Docker with Compose, and that its engine answers this user.

    Raises:
        ConfigError: there is none, or it does not answer.
    """
    command = ("docker", "compose", "ls", "--quiet")  # `version` would not ask the engine
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=60)
        reason = run.stderr.strip() or f"exit code {run.returncode}" if run.returncode else ""
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(error)
    if reason:
        raise ConfigError(
            f'[deploy] way is "docker", and docker compose does not run: {reason}',
            fix='install Docker with its Compose plugin, start it and let this user use it, or write way = "bare"',
        )


def find_containers(folder: Path) -> ServerRecord | None:
    """The server of a profile that runs in a container; None where there is none.

    Args:
        folder: of the profile.
    """
    record = read_record(folder / _RECORD)
    if record is None:
        return None
    command = (*COMPOSE, "ps", "--status", "running", "--quiet", "server")
    environment = _environment(folder, record.ports)
    with contextlib.suppress(OSError):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
        if done.stdout.strip():
            return record
    return None


def start_containers(
    folder: Path, manifest_sha256: str, ports: ServerPorts, lock: int, progress: Callable[[str], None]
) -> None:
    """Start server, Prometheus and Grafana, and wait until they are healthy; what runs already makes way.

    Args:
        folder: of the profile; its repository is served.
        manifest_sha256: of that repository.
        ports: of the server, on loopback.
        lock: file descriptor from `command_line.alone`.
        progress: is told what Docker is at, several times a second.

    Raises:
        ConfigError: a port for HTTP is asked for.
        ServerError: Docker fails.
    """
    if ports.http is not None:
        raise ConfigError("HTTP_PORT is set, and the container has no HTTP", fix="unset it; gRPC is at GRPC_PORT")
    up = ("up", "--build", "--detach", "--force-recreate", "--wait", "--wait-timeout", str(START_TIMEOUT_S))
    log_file = folder / "deploy-logs" / "serve.log"
    run_command((*COMPOSE, *up), log_file, lock, progress, environment=_environment(folder, ports))
    write_record(folder / _RECORD, ServerRecord(pid=None, manifest_sha256=manifest_sha256, ports=ports))


def stop_containers(folder: Path) -> ServerRecord | None:
    """Stop and remove the containers after what was accepted is answered; returns which server it was.

    Raises:
        ServerError: Docker fails.
    """
    running = find_containers(folder)
    if running is None:
        return None
    environment = _environment(folder, running.ports)
    done = subprocess.run((*COMPOSE, "down"), capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise ServerError(f"docker compose down failed: {done.stderr.strip()}", fix="mend it, and try again")
    (folder / _RECORD).unlink()
    return running


def _environment(folder: Path, ports: ServerPorts) -> Mapping[str, str]:
    """What compose.yaml asks for."""
    return {
        **os.environ,
        "REPOSITORY": str((folder / "repository").resolve()),
        "GRAFANA_PASSWORD": os.environ.get("GRAFANA_PASSWORD") or _password(folder / _PASSWORD),
        "GRPC_PORT": str(ports.grpc),
        "METRICS_PORT": str(ports.metrics),
    }


def _password(path: Path) -> str:
    """The password of Grafana's admin: made once, and kept from other users."""
    if not path.is_file():
        write_private(path, secrets.token_urlsafe(24).encode() + b"\n")
    return path.read_text(encoding="utf-8").strip()
