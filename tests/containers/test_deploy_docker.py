"""`make deploy` with way = "docker": which calls Docker gets, and what follows from its answers.

There is no Docker here, so a program stands in for it. What it starts is the real server of the real repository.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gdino_build.deployment.command_line import alone
from gdino_build.deployment.compose_server import COMPOSE, find_containers
from gdino_build.deployment.settings import load_deploy_settings
from gdino_build.deployment.steps import (
    Deployment,
    check_machine,
    detect,
    read_metrics,
    serve,
    server_urls,
    stop_server,
    wait_ready,
)
from gdino_build.server_ports import ServerPorts
from gdino_core.errors import ConfigError, ServerError
from tests.end_to_end.conftest import REPOSITORY

pytestmark = pytest.mark.server
CONFIG = """
extends = "demo-cpu"
[deploy]
model = "demo"
weights = []
mirror = ""
file = ""
copies = "one"
way = "docker"
"""


class Docker:
    """The stand-in, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.notes = folder / "calls.jsonl"
        program = folder / "docker"
        stand_in = Path(__file__).with_name("fake_docker.py")
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {stand_in} "$@"\n')
        program.chmod(0o755)

    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.notes.read_text().splitlines()] if self.notes.exists() else []


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    found = Docker(tmp_path)
    ports = ServerPorts.unused()
    for name, value in {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "CALLS": str(found.notes),
        "GRPC_PORT": str(ports.grpc),
        "METRICS_PORT": str(ports.metrics),
    }.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    (tmp_path / "mine.toml").write_text(CONFIG)
    settings = load_deploy_settings(tmp_path / "mine.toml")
    shutil.copytree(REPOSITORY, tmp_path / "out" / "mine" / "repository")
    with alone(tmp_path / "out" / "mine", lambda _: None) as lock:
        deployment = Deployment(
            settings=settings, out=tmp_path / "out", environment=Path(".venv"), lock=lock, progress=lambda _: None
        )
        yield deployment
        stop_server(settings, deployment.folder, lambda _: None)


def test_the_containers_serve_answer_and_go(docker: Docker, deployment: Deployment) -> None:
    check_machine(deployment)
    assert serve(deployment) == "server, Prometheus and Grafana are healthy"
    wait_ready(deployment)
    assert "purple circle, yellow star" in detect(deployment)
    assert "1 requests answered" in read_metrics(deployment)
    [up] = [call for call in docker.calls() if "up" in call["arguments"]]
    assert up["arguments"][: len(COMPOSE) - 1] == list(COMPOSE[1:])
    assert {"--build", "--detach", "--wait"} <= set(up["arguments"])
    assert up["environment"]["REPOSITORY"] == str((deployment.folder / "repository").resolve())
    password = deployment.folder / "grafana-password"
    assert up["environment"]["GRAFANA_PASSWORD"] == password.read_text().strip()
    assert password.stat().st_mode & 0o777 == 0o600
    assert server_urls(deployment).keys() == {"gRPC", "metrics", "Prometheus", "Grafana"}

    assert serve(deployment) == "one runs, the container"  # a second time it has nothing to do
    assert sum("up" in call["arguments"] for call in docker.calls()) == 1

    stopped = stop_server(deployment.settings, deployment.folder, lambda _: None)
    assert str(stopped) == "the container"
    assert find_containers(deployment.folder) is None
    assert sum("down" in call["arguments"] for call in docker.calls()) == 1


def test_a_new_build_takes_the_place_of_the_old(docker: Docker, deployment: Deployment) -> None:
    serve(deployment)
    manifest = deployment.folder / "repository" / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    assert serve(deployment) == "server, Prometheus and Grafana are healthy"
    ups = [call["arguments"] for call in docker.calls() if "up" in call["arguments"]]
    assert len(ups) == 2
    assert "--force-recreate" in ups[1]
    assert serve(deployment) == "one runs, the container"


def test_a_docker_that_fails_is_told_in_its_own_words(
    docker: Docker, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKEN_DOCKER", "1")
    with pytest.raises(ServerError, match="Cannot connect to the Docker daemon"):
        serve(deployment)
    assert find_containers(deployment.folder) is None
    with pytest.raises(ConfigError, match=r"docker compose does not run: Cannot connect .*\n  fix: .* or write"):
        check_machine(deployment)


def test_a_machine_without_docker_is_told(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="docker compose does not run"):
        check_machine(deployment)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({'way = "docker"': 'way = "podman"'}, r"way is 'podman'\n  fix: choose one of bare, docker"),
        ({"[deploy]": '[security]\naddress = "0.0.0.0"\naccept_exposed = "test"\n[deploy]'}, r"\[security\] is set"),
    ],
)
def test_what_docker_would_not_do_is_refused(tmp_path: Path, change: dict[str, str], message: str) -> None:
    text = CONFIG
    for old, new in change.items():
        text = text.replace(old, new)
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_deploy_settings(tmp_path / "mine.toml")
