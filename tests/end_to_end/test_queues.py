"""A server that is asked for more than it can do refuses clearly, prefers who waits, and loses nothing."""

import contextlib
import io
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from gdino_build.profile import load_profile
from gdino_build.serve import RunningServer, running_server
from gdino_build.server_ports import ServerPorts
from gdino_client import Client, Detections, ServerUnavailable
from gdino_core.draining import POLL_INTERVAL_S, QUIET_POLLS, count_requests
from tests.end_to_end.conftest import REPOSITORY, assemble_demo

pytestmark = pytest.mark.server

PICTURE = Path("demo/samples/1-landscape.jpg")
PROMPT = ["yellow star", "purple circle"]
QUEUE = 3


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose queues hold three requests, and whose detector takes one at a time."""
    folder = tmp_path_factory.mktemp("narrow")
    repository = assemble_demo(folder / "repository", max_queue_size=QUEUE, batches_at_once=1, max_batch_size=1)
    with running_server(repository, log_file=folder / "server.log") as server:
        yield server


def test_a_server_that_is_ready_has_run_every_bucket(narrow: RunningServer) -> None:
    settings = load_profile("demo-cpu").preprocess
    pictures = len(settings.resolution_buckets) + 1  # each alone, and the largest batch, here of one
    with InferenceServerClient(narrow.grpc_url) as triton:
        for model, rows in (("detector", pictures), ("text_encoder", len(settings.text_buckets))):
            [statistics] = triton.get_inference_statistics(model).model_stats
            assert statistics.inference_count == rows


def answers_of(client: Client, count: int) -> list[Detections | ServerUnavailable]:
    def ask(_: int) -> Detections | ServerUnavailable:
        try:
            return client.detect(PICTURE, PROMPT)
        except ServerUnavailable as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(ask, range(count)))


def test_what_a_full_queue_refuses_is_told_so_and_all_others_are_answered(narrow: RunningServer) -> None:
    with Client(narrow.grpc_url) as client:
        alone = client.detect(PICTURE, PROMPT)
        answers = answers_of(client, 40)
        refused = [one for one in answers if isinstance(one, ServerUnavailable)]
        answered = [one for one in answers if isinstance(one, Detections)]
        assert refused
        assert all("maximum queue size" in str(one) and "send it again later" in str(one) for one in refused)
        assert len(answered) >= QUEUE
        for one in answered:
            assert one.labels == alone.labels
            np.testing.assert_allclose(one.scores, alone.scores, atol=1e-5)
        assert client.detect(PICTURE, PROMPT).labels == alone.labels


def test_bulk_requests_that_fill_their_queue_keep_no_interactive_one_out(narrow: RunningServer) -> None:
    stop, refused = threading.Event(), list[str]()

    def ask_bulk(client: Client) -> None:
        while not stop.is_set():
            try:
                client.detect(PICTURE, PROMPT, bulk=True)
            except ServerUnavailable as error:
                refused.append(str(error))

    with Client(narrow.grpc_url) as client, ThreadPoolExecutor(12) as pool:
        flood = [pool.submit(ask_bulk, client) for _ in range(12)]
        try:
            assert all(len(client.detect(PICTURE, PROMPT)) for _ in range(10))
        finally:
            stop.set()
        for future in flood:
            future.result()
    assert refused


def inputs() -> list[InferInput]:
    image = InferInput("IMAGE", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[PICTURE.read_bytes()]], np.object_))
    prompt = InferInput("PROMPT", [1, 2], "BYTES")
    prompt.set_data_from_numpy(np.array([[label.encode() for label in PROMPT]], np.object_))
    return [image, prompt]


def test_a_request_that_may_not_wait_so_long_is_refused_and_the_one_before_it_answered(server: RunningServer) -> None:
    with InferenceServerClient(server.grpc_url) as triton, ThreadPoolExecutor(48) as pool:
        patient = [pool.submit(triton.infer, "grounding_dino", inputs()) for _ in range(40)]
        time.sleep(0.1)  # they wait
        hasty = [pool.submit(triton.infer, "grounding_dino", inputs(), timeout=1000) for _ in range(8)]  # microseconds
        errors = [future.exception() for future in hasty]
        assert all(future.result().as_numpy("SCORES") is not None for future in patient)
    codes = Counter(str(error.status()) for error in errors if isinstance(error, InferenceServerException))
    assert set(codes) == {"StatusCode.UNAVAILABLE"}
    assert any("timeout expired" in str(error) for error in errors)


def test_interactive_requests_pass_bulk_ones_that_wait(tmp_path: Path) -> None:
    repository = assemble_demo(tmp_path / "repository", batches_at_once=1, max_batch_size=1)
    with (
        running_server(repository, log_file=tmp_path / "server.log") as server,
        Client(server.grpc_url) as client,
        ThreadPoolExecutor(40) as pool,
    ):
        order: list[str] = []

        def ask(kind: str) -> None:
            client.detect(PICTURE, PROMPT, bulk=kind == "bulk")
            order.append(kind)

        waiting: list[Future[None]] = [pool.submit(ask, "bulk") for _ in range(30)]
        time.sleep(0.2)  # they wait
        waiting += [pool.submit(ask, "interactive") for _ in range(5)]
        for future in waiting:
            future.result()
    places = [place for place, kind in enumerate(order) if kind == "interactive"]
    assert max(places) < len(order) - 5  # the last five of all were not they, though they came last


@contextlib.contextmanager
def foreground(repository: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`serve` in a process of its own, and its gRPC address."""
    ports = ServerPorts.unused()
    out = str(repository.parent.parent)
    command = [sys.executable, "-m", "gdino_build.cli", "serve", "--profile", "demo-cpu", "--out", out]
    environment = os.environ | {name: str(port) for name, port in ports.by_variable().items()}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            assert "is ready" in process.stdout.readline()
            yield process, f"127.0.0.1:{ports.grpc}"
        finally:
            process.kill()


def wait_until_preprocessed(url: str, requests: int) -> None:
    with InferenceServerClient(url) as triton:
        while triton.get_inference_statistics("preprocess").model_stats[0].inference_count < requests:
            time.sleep(0.01)


def test_a_server_that_is_told_to_stop_answers_what_it_has_accepted() -> None:
    with foreground(REPOSITORY) as (process, url), Client(url) as client, ThreadPoolExecutor(40) as pool:
        alone = client.detect(PICTURE, PROMPT)
        accepted = [pool.submit(client.detect, PICTURE, PROMPT) for _ in range(40)]
        wait_until_preprocessed(url, 1 + len(accepted))  # what has not begun is refused, not lost
        process.send_signal(signal.SIGTERM)
        assert not all(future.done() for future in accepted)
        assert [future.result().labels for future in accepted] == [alone.labels] * len(accepted)
        assert process.wait(timeout=30) == 0
        with pytest.raises(ServerUnavailable):
            client.detect(PICTURE, PROMPT)


def test_a_second_signal_waits_for_no_answer(tmp_path: Path) -> None:
    repository = assemble_demo(tmp_path / "demo-cpu" / "repository", max_batch_size=1, max_queue_size=0, warm_up=False)
    with foreground(repository) as (process, url), Client(url) as client, ThreadPoolExecutor(100) as pool:
        asked = [pool.submit(client.detect, PICTURE, PROMPT) for _ in range(100)]
        while not any(future.done() for future in asked):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        while not list(Path("/dev/shm").glob(f"gdino_{process.pid}_*drain")):  # else the two may come as one
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 1
        assert process.stderr is not None
        assert "a second signal killed tritonserver" in process.stderr.read()
        assert any(isinstance(future.exception(), ServerUnavailable) for future in asked)


def test_a_request_is_never_so_long_out_of_sight_that_the_server_would_be_stopped(server: RunningServer) -> None:
    large = io.BytesIO()
    Image.new("RGB", (8000, 8000)).save(large, "PNG")  # takes about a second to decode
    seen = []
    with Client(server.grpc_url) as client, ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.detect, large.getvalue(), PROMPT)
        while not future.done():
            seen.append(count_requests(server.metrics_url))
            time.sleep(POLL_INTERVAL_S)
        future.result()
    quiet = [len(list(polls)) for is_seen, polls in itertools.groupby(seen, bool) if not is_seen]
    assert max(quiet, default=0) < QUIET_POLLS
