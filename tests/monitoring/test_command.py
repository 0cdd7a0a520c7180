"""`make monitor` in a terminal: its pages are there, it tells of alerts, and of what goes wrong with itself."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gdino_build.monitoring.telling import changes
from gdino_build.server_ports import ServerPorts, check_port_unused


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder monitoring/ with alerts that need not wait."""
    shutil.copytree("monitoring", tmp_path / "monitoring")
    alerts = tmp_path / "monitoring" / "prometheus" / "rules" / "alerts.yml"
    alerts.write_text(re.sub(r"for: \w+", "for: 1s", alerts.read_text()))
    return tmp_path


# Grafana is not to be had where the tests run: this says how it was started, and that it is healthy.
GRAFANA = """#!{python}
import http.server, json, os, pathlib, sys

class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()

pathlib.Path("started.json").write_text(json.dumps({{"arguments": sys.argv[1:], "environment": dict(os.environ)}}))
address = os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"])
http.server.HTTPServer(address, Answers).serve_forever()
"""


@contextlib.contextmanager
def monitoring(project: Path, program: Path, port: int, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """`gdino-build monitor` beside a port at which no server is."""
    command = [sys.executable, "-m", "gdino_build.cli", "monitor", "--prometheus", str(program), "--port", str(port)]
    ports = ServerPorts.unused()
    command += ["--grafana-port", str(ports.grpc)]
    environment = os.environ | {"METRICS_PORT": str(ports.metrics)} | variables
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=project, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def read_until(process: subprocess.Popen[str], wanted: str) -> str:
    """What it prints, up to the first line in which that is."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if wanted in line:
            return said
    raise AssertionError(f"ended without {wanted!r}: {said}{process.stderr.read() if process.stderr else ''}")


def test_the_page_that_it_names_is_there_and_a_server_that_is_not_is_told(
    project: Path, prometheus_program: Path
) -> None:
    with monitoring(project, prometheus_program, ServerPorts.unused().metrics) as process:
        said = read_until(process, "Ctrl-C stops it")
        [page] = re.findall(r"http://127\.0\.0\.1:\d+", said)
        with urllib.request.urlopen(page, timeout=10) as answer:
            shown = answer.read().decode()
        for part in re.findall(r'(?:src|href)="(/[^"]+\.(?:js|css)[^"]*)"', shown):
            urllib.request.urlopen(page + part, timeout=10).close()  # a page without its scripts is empty
        assert "GdinoTargetDown (critical): 127.0.0.1:" in read_until(process, "GdinoTargetDown")
        process.send_signal(signal.SIGTERM)
        assert "Prometheus stopped" in read_until(process, "Prometheus stopped")
        assert process.wait(timeout=30) == 0
    check_port_unused("PROMETHEUS_PORT", int(page.rpartition(":")[2]))


def test_a_prometheus_that_dies_is_not_told_as_one_that_was_stopped(project: Path, prometheus_program: Path) -> None:
    with monitoring(project, prometheus_program, ServerPorts.unused().metrics) as process:
        read_until(process, "Ctrl-C stops it")
        [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        out, error = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "ended with exit code -9" in error
        assert f"its whole log is {Path('out/monitor/data.log')}" in error
        assert "stopped" not in out


def test_the_prometheus_of_another_is_not_taken_for_its_own(project: Path, prometheus_program: Path) -> None:
    port = ServerPorts.unused().metrics
    with monitoring(project, prometheus_program, port) as first:
        read_until(first, "Ctrl-C stops it")
        with monitoring(project, prometheus_program, port) as second:
            out, error = second.communicate(timeout=60)
        assert second.returncode == 1
        assert re.search(rf"port {port} is taken by prometheus \(pid \d+\)\n.*PROMETHEUS_PORT=", error)
        assert str(port) not in out


def test_a_grafana_that_is_installed_shows_the_dashboard_of_this_prometheus(
    project: Path, prometheus_program: Path
) -> None:
    program = project / "grafana-1" / "bin" / "grafana"
    (program.parents[1] / "conf").mkdir(parents=True)
    program.parent.mkdir()
    program.write_text(GRAFANA.format(python=sys.executable))
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    with monitoring(project, prometheus_program, ServerPorts.unused().metrics, PATH=path) as process:
        said = read_until(process, "Ctrl-C stops it")
    [page] = re.findall(r"Grafana shows them: http://(\S+)/d/gdino", said)
    [prometheus] = re.findall(r"(http://\S+) draws", said)
    started = json.loads((project / "started.json").read_text())
    assert started["arguments"] == ["server", f"--homepath={program.parents[1]}"]
    given = started["environment"]
    assert f"{given['GF_SERVER_HTTP_ADDR']}:{given['GF_SERVER_HTTP_PORT']}" == page
    provisioning = Path(given["GF_PATHS_PROVISIONING"])
    assert f"url: {prometheus}  #" in (provisioning / "datasources" / "prometheus.yml").read_text()
    [folder] = re.findall(r"path: (\S+)", (provisioning / "dashboards" / "gdino.yml").read_text())
    assert json.loads((Path(folder) / "gdino.json").read_text())["uid"] == "gdino"  # as in the page's address


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_what_is_no_port_is_refused_with_its_flag(port: str) -> None:
    command = [sys.executable, "-m", "gdino_build.cli", "monitor", "--port", port]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert f"argument --port: {port} is no port from 1 to 65535" in refused.stderr


def test_outside_of_the_project_the_missing_file_is_named(tmp_path: Path, prometheus_program: Path) -> None:
    with monitoring(tmp_path, prometheus_program, ServerPorts.unused().metrics) as process:
        _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "monitoring/prometheus/prometheus.yml does not exist\n  fix: run this in the project's folder" in error


def test_an_alert_is_told_once_when_it_begins_and_once_when_it_is_over() -> None:
    key = (("alertname", "GdinoStepFails"), ("model", "detector"), ("severity", "critical"))
    first = {key: {"summary": "detector fails: 3 %", "description": "start it again"}}
    later = {key: {"summary": "detector fails: 4 %", "description": "start it again"}}
    assert changes({}, first) == ["GdinoStepFails (critical): detector fails: 3 %\n  start it again"]
    assert changes(first, later) == []
    assert changes(later, {}) == ["GdinoStepFails is over: detector fails: 4 %"]
