"""A real Prometheus beside a real server: every panel has data under load, and a model that is killed is told."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tritonclient.grpc import InferenceServerClient

from gdino_build.monitoring.dashboard import read_panels
from gdino_build.monitoring.prometheus import Prometheus, running_prometheus, write_config
from gdino_build.pictures import draw_picture
from gdino_build.serve import RunningServer, running_server
from gdino_build.server_ports import ServerPorts
from gdino_client import Client
from gdino_core.errors import GdinoError
from tests.end_to_end.conftest import REPOSITORY

pytestmark = pytest.mark.server

OF_A_GPU = ("nv_gpu", "gdino:gpu")  # how queries begin for which a machine without one has no series
LABELS = ("red circle", "blue star")
DEADLINE_S = 120.0


@dataclass(frozen=True)
class Watched:
    server: RunningServer
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched(prometheus_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watching")
    with running_server(REPOSITORY, log_file=folder / "server.log", cache_bytes=1 << 20) as server:
        config = write_config(folder / "config", server.ports.metrics, interval_s=1)
        rules = config.parent / "rules" / "alerts.yml"
        rules.write_text(re.sub(r"for: \w+", "for: 2s", rules.read_text()))
        port = ServerPorts.unused().metrics
        with running_prometheus(prometheus_program, config, folder / "data", port) as prometheus:
            yield Watched(server, prometheus)


@pytest.fixture(scope="module", autouse=True)
def load(watched: Watched) -> Iterator[None]:
    """Pictures, one after the other, also while they fail."""
    ended = threading.Event()

    def ask() -> None:
        with Client(f"127.0.0.1:{watched.server.ports.grpc}", timeout_s=10) as client:
            while not ended.wait(0.05):
                try:
                    client.detect(draw_picture(1, 96, 128), LABELS)
                except GdinoError:
                    continue

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    ended.set()
    thread.join()


def until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.5)
    return holds()


@pytest.mark.parametrize(
    ("title", "query"),
    [(panel.title, query) for panel in read_panels() for query in panel.queries if not query.startswith(OF_A_GPU)],
)
def test_every_panel_has_data_under_load(watched: Watched, title: str, query: str) -> None:
    assert until(lambda: bool(watched.prometheus.query(query))), f"{title}: nothing for {query}"


def test_a_server_that_answers_raises_no_alarm(watched: Watched) -> None:
    assert until(lambda: bool(watched.prometheus.query("gdino:answered:rate > 0")))
    assert watched.prometheus.firing() == []


def test_a_model_whose_process_is_killed_is_told_by_name(watched: Watched) -> None:
    os.kill(stub_of(watched.server.pid, "detector"), signal.SIGKILL)

    def is_told() -> bool:
        return any(
            (alert["alertname"], alert.get("model")) == ("GdinoStepFails", "detector")
            for alert in watched.prometheus.firing()
        )

    assert until(is_told)
    with InferenceServerClient(watched.server.grpc_url) as triton:  # so readiness alone would not have told it
        assert triton.is_server_ready()
        assert triton.is_model_ready("detector")


def test_a_server_that_is_gone_is_told(watched: Watched) -> None:
    os.kill(watched.server.pid, signal.SIGKILL)
    assert until(lambda: "GdinoTargetDown" in {alert["alertname"] for alert in watched.prometheus.firing()})


def stub_of(server_pid: int, model: str) -> int:
    """The process that runs model.py of a model."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            command = (process / "cmdline").read_text().split("\0")
        except OSError:  # it has ended
            continue
        if parent == server_pid and any(part.endswith(f"/{model}/1/model.py") for part in command):
            return int(process.name)
    raise AssertionError(f"no process runs {model}")
