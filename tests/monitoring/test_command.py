"""`make monitor` in a terminal: its pages are there, it tells of alerts, and of what goes wrong with itself."""

import contextlib
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


@contextlib.contextmanager
def monitoring(project: Path, program: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """`gdino-build monitor` beside a port at which no server is."""
    command = [sys.executable, "-m", "gdino_build.cli", "monitor", "--prometheus", str(program), "--port", str(port)]
    environment = os.environ | {"METRICS_PORT": str(ServerPorts.unused().metrics)}
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
