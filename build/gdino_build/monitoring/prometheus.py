"""Run a Prometheus on loopback that scrapes one server, with the rules and alerts of monitoring/."""

import contextlib
import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gdino_build.monitoring.background import WebProgram
from gdino_build.server_ports import HOST
from gdino_core.errors import ConfigError

CONFIG_FOLDER: Final = Path("monitoring/prometheus")
_CONFIG: Final = "prometheus.yml"
_SERVER: Final = "server:8002"  # in that file: the server of docker/compose.yaml
_INTERVAL: Final = "interval: 15s"


@dataclass(frozen=True, kw_only=True)
class Prometheus:
    """A Prometheus that is ready.

    Attributes:
        program: what runs.
        process: it.
    """

    program: WebProgram
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Of its web page and its API."""
        return self.program.url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that a PromQL expression gives now, each with `metric` and `value`."""
        found: list[dict[str, Any]] = self._ask("query", query=expression)["result"]
        return found

    def firing(self) -> list[dict[str, str]]:
        """Labels of the alerts that fire now."""
        return [alert["labels"] for alert in self.firing_alerts()]

    def firing_alerts(self) -> list[dict[str, dict[str, str]]]:
        """The alerts that fire now, each with `labels` and `annotations`."""
        return [alert for alert in self._ask("alerts")["alerts"] if alert["state"] == "firing"]

    def check_running(self) -> None:
        """Refuse to go on when it has ended.

        Raises:
            ServerError: with the last that it said.
        """
        self.program.check_running(self.process)

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
        ConfigError: the file of the project is missing, or does not name its server and its intervals as expected.
    """
    source = CONFIG_FOLDER / _CONFIG
    if not source.is_file():
        raise ConfigError(f"{source} does not exist", fix="run this in the project's folder")
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
        ServerError: the port is taken, or it does not start.
    """
    data.mkdir(parents=True, exist_ok=True)
    program = program.resolve()
    command = [
        str(program),
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=7d",
        f"--web.listen-address={HOST}:{port}",
    ]
    pages = program.parents[1] / "share" / "prometheus" / "web"
    if pages.is_dir():  # Debian's alone keeps its pages in files, and has this flag
        command.append(f"--web.local-assets={pages}")
    web = WebProgram(
        command=command,
        port=port,
        port_variable="PROMETHEUS_PORT",
        health_path="/-/ready",
        log_file=data.with_suffix(".log"),
    )
    with web.running() as process:
        yield Prometheus(program=web, process=process)
