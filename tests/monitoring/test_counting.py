"""Triton and the models count failed requests as the rules reckon: each kind of failure sent to a real server."""

import re
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gdino_build.monitoring.prometheus import running_prometheus, write_config
from gdino_build.pictures import draw_picture
from gdino_build.serve import RunningServer, running_server
from gdino_build.server_ports import ServerPorts
from gdino_client import Client, Detections, RequestRejected, ServerUnavailable
from tests.end_to_end.conftest import assemble_demo

pytestmark = pytest.mark.server

QUEUE = 3
LABELS = ("red circle", "blue star")
PICTURE = draw_picture(1, 96, 128)
DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose queues hold three requests."""
    folder = tmp_path_factory.mktemp("counting")
    repository = assemble_demo(folder / "repository", max_queue_size=QUEUE, max_batch_size=1, warm_up=False)
    with running_server(repository, log_file=folder / "server.log") as server:
        yield server


Failures = Counter[tuple[str, str]]  # by model and reason


def failures(server: RunningServer) -> Failures:
    """All that failed so far, as Triton and the models count it."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = Failures()
    for line in lines:
        if line.startswith(("nv_inference_request_failure{", "gdino_errors{")):
            labels = dict(re.findall(r'(\w+)="(\w+)"', line))
            found[labels["model"], labels.get("reason") or labels["code"]] = round(float(line.rsplit(" ", 1)[1]))
    return found


def assert_rise(server: RunningServer, before: Failures, expected: Failures) -> None:
    """The last count comes after the answer."""
    deadline = time.monotonic() + DEADLINE_S
    while failures(server) - before != expected and time.monotonic() < deadline:
        time.sleep(0.1)
    assert failures(server) - before == expected


def ask_at_once(server: RunningServer, requests: int) -> list[Detections | ServerUnavailable]:
    with Client(server.grpc_url) as client, ThreadPoolExecutor(requests) as pool:

        def ask(_: int) -> Detections | ServerUnavailable:
            try:
                return client.detect(PICTURE, LABELS)
            except ServerUnavailable as error:
                return error

        return list(pool.map(ask, range(requests)))


def test_a_bad_request_counts_twice_at_the_ensemble_and_once_at_the_model_that_refused_it(
    narrow: RunningServer,
) -> None:
    before = failures(narrow)
    with Client(narrow.grpc_url) as client:
        for _ in range(3):
            with pytest.raises(RequestRejected):
                client.detect(b"no picture" * 9, LABELS)
    expected = Failures({("grounding_dino", "OTHER"): 6, ("preprocess", "INVALID_ARGUMENT"): 3})
    assert_rise(narrow, before, expected)


def test_a_request_that_finds_a_queue_full_counts_twice_at_the_ensemble_and_at_no_step(narrow: RunningServer) -> None:
    before = failures(narrow)
    refused = [one for one in ask_at_once(narrow, 40) if isinstance(one, ServerUnavailable)]
    assert refused
    assert all("maximum queue size" in str(one) for one in refused)
    assert_rise(narrow, before, Failures({("grounding_dino", "OTHER"): 2 * len(refused)}))


def test_a_queue_that_stays_full_is_told_with_its_step(
    narrow: RunningServer, prometheus_program: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "config", narrow.ports.metrics, interval_s=1)
    rules = config.parent / "rules" / "alerts.yml"
    rules.write_text(re.sub(r"for: \w+", "for: 2s", rules.read_text()))
    ended = threading.Event()

    def flood() -> None:
        while not ended.is_set():
            ask_at_once(narrow, 20)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        port = ServerPorts.unused().metrics
        with running_prometheus(prometheus_program, config, tmp_path / "data", port) as prometheus:
            deadline = time.monotonic() + DEADLINE_S
            full: set[str | None] = set()
            while not full and time.monotonic() < deadline:
                time.sleep(0.5)
                full = {one.get("model") for one in prometheus.firing() if one["alertname"] == "GdinoQueueFull"}
    finally:
        ended.set()
        thread.join()
    assert full
    assert full <= {"preprocess", "text_encoder", "detector", "postprocess"}
