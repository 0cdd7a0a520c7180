"""Run a Prometheus on loopback that scrapes one server, with the rules and alerts of monitoring/."""

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gdino_build import launch_with_parent
from gdino_build.server_ports import HOST
from gdino_core.errors import ConfigError, ServerError

CONFIG_FOLDER: Final = Path("monitoring/prometheus")
_CONFIG: Final = "prometheus.yml"
_SERVER: Final = "server:8002"  # in that file: the server of docker/compose.yaml
_INTERVAL: Final = "interval: 15s"
_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Prometheus:
    """A Prometheus that is ready.

    Attributes:
        url: of its web page and its API.
        process: it.
    """

    url: str
    process: subprocess.Popen[bytes]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that a PromQL expression gives now, each with `metric` and `value`."""
        found: list[dict[str, Any]] = self._ask("query", query=expression)["result"]
        return found

    def firing(self) -> list[dict[str, str]]:
        """Labels of the alerts that fire now."""
        return [alert["labels"] for alert in self._ask("alerts")["alerts"] if alert["state"] == "firing"]

    def _ask(self, what: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{query}", timeout=10) as response:
            return json.load(response)["data"]


def find_prometheus(given: str) -> Path:
    """The program of that name or path.

    Raises:
        ConfigError: there is none.
    """
    found = shutil.which(given)
    if not found:
        raise ConfigError(
            f"there is no program {given}",
            fix="install the Debian package prometheus, or say where it is: PROMETHEUS=/path/prometheus",
        )
    return Path(found)


def write_config(folder: Path, metrics_port: int, *, interval_s: int = 5) -> Path:
    """Copy monitoring/prometheus/ for a server on this machine.

    Args:
        folder: to write; replaced.
        metrics_port: of the server.
        interval_s: between two scrapes, and between two evaluations of rules.

    Returns:
        Path of the configuration.

    Raises:
        ConfigError: the file of the project does not name its server and its intervals as expected.
    """
    source = CONFIG_FOLDER / _CONFIG
    text = source.read_text(encoding="utf-8")
    if text.count(_SERVER) != 1 or text.count(_INTERVAL) != 2:
        raise ConfigError(
            f"{source} names {_SERVER} {text.count(_SERVER)} times and {_INTERVAL!r} {text.count(_INTERVAL)} times",
            fix="it scrapes one server, at one interval, which its rules are evaluated at too",
        )
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(CONFIG_FOLDER, folder)
    text = text.replace(_SERVER, f"{HOST}:{metrics_port}").replace(_INTERVAL, f"interval: {interval_s}s")
    (folder / _CONFIG).write_text(text, encoding="utf-8")
    return folder / _CONFIG


@contextlib.contextmanager
def running_prometheus(program: Path, config: Path, data: Path, port: int) -> Iterator[Prometheus]:
    """Run Prometheus until the block ends.

    Args:
        program: prometheus.
        config: from `write_config`.
        data: folder of what it keeps; its log is beside it.
        port: of its web page, on loopback.

    Raises:
        ServerError: it does not start.
    """
    data.mkdir(parents=True, exist_ok=True)
    log_file = data.with_suffix(".log")
    command = [
        str(program.resolve()),
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=7d",
        f"--web.listen-address={HOST}:{port}",
    ]
    launcher = [sys.executable, "-I", "-S", launch_with_parent.__file__, str(os.getpid())]
    with log_file.open("wb") as log:
        process = subprocess.Popen([*launcher, *command], stdout=log, stderr=log)
    try:
        prometheus = Prometheus(url=f"http://{HOST}:{port}", process=process)
        _wait_until_ready(prometheus, log_file)
        yield prometheus
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(prometheus: Prometheus, log_file: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while prometheus.process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{prometheus.url}/-/ready", timeout=5):
                return
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
    said = log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
    raise ServerError(
        f"Prometheus does not start at {prometheus.url}: {' | '.join(said)}",
        fix=f"its whole log is {log_file}; PROMETHEUS_PORT= chooses another port",
    )
