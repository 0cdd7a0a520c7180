"""Pixels in shared memory are answered as the same pixels in a file, and nothing of them stays behind."""

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from gdino_build.serve import RunningServer
from gdino_client import Client, DeadlineExceeded, Detections, ImageError, RequestRejected, ServerUnavailable
from gdino_client.cli import main

pytestmark = pytest.mark.server

PICTURES = ["1-landscape.jpg", "3-portrait.webp", "5-exif-rotated.jpg"]
PIXELS = np.zeros((50, 50, 3), np.uint8)
PROMPT = ["yellow star", "red circle", "blue square"]


def regions(server: RunningServer) -> set[str]:
    with InferenceServerClient(server.grpc_url) as triton:
        return set(triton.get_system_shared_memory_status().regions)


def forget_regions(server: RunningServer) -> None:
    """Let a server be as if it had been started anew."""
    with InferenceServerClient(server.grpc_url) as triton:
        while triton.get_system_shared_memory_status().regions:
            with contextlib.suppress(InferenceServerException):  # it is not done with the last request
                triton.unregister_system_shared_memory()


def files() -> list[Path]:
    return list(Path("/dev/shm").glob("gdino_client_*"))


def assert_equal(one: Detections, other: Detections) -> None:
    assert (one.labels, one.image_hw) == (other.labels, other.image_hw)
    np.testing.assert_array_equal(one.scores, other.scores)
    np.testing.assert_array_equal(one.boxes_xyxy, other.boxes_xyxy)


@pytest.mark.parametrize("name", PICTURES)
def test_pixels_are_answered_as_the_file_that_they_are_from(server: RunningServer, client: Client, name: str) -> None:
    path = Path("demo/samples") / name
    expected = client.detect(path, PROMPT)
    with Client(server.grpc_url, shared_memory=True) as sharing, Image.open(path) as picture:
        assert_equal(sharing.detect(picture, PROMPT), expected)
        assert_equal(sharing.detect(path, PROMPT), expected)
        assert len(regions(server)) == len(files()) == 1


def test_arrays_of_any_layout_are_shared(server: RunningServer, client: Client) -> None:
    with Image.open("demo/samples/1-landscape.jpg") as picture:
        array = np.asarray(picture)[::-1, ::2]
    with Client(server.grpc_url, shared_memory=True) as sharing:
        assert_equal(sharing.detect(array, PROMPT), client.detect(array, PROMPT))


def test_threads_share_a_client_and_no_region_is_left(server: RunningServer) -> None:
    arrays = [np.full((100 + 20 * index, 300, 3), 10 * index, np.uint8) for index in range(12)]
    with Client(server.grpc_url, shared_memory=True) as sharing, ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda array: sharing.detect(array, PROMPT, box_threshold=0.0), arrays))
        for array, found in zip(arrays, together, strict=True):
            assert_equal(found, sharing.detect(array, PROMPT, box_threshold=0.0))
        assert 1 <= len(regions(server)) <= 6
    assert not regions(server)
    assert not files()


def test_a_refused_request_leaves_no_region(server: RunningServer) -> None:
    with Client(server.grpc_url, shared_memory=True) as sharing:
        with pytest.raises(RequestRejected, match="BOX_THRESHOLD"):
            sharing.detect(PIXELS, PROMPT, box_threshold=2.0)
        with pytest.raises(RequestRejected, match="too thin"):
            sharing.detect(np.zeros((1, 5000, 3), np.uint8), PROMPT)
        with pytest.raises(ImageError, match="not uint8"):
            sharing.detect(np.zeros((5, 5), np.uint8), PROMPT)
        assert not files()
        assert len(sharing.detect(PIXELS, PROMPT)) == 0
    assert not regions(server)


def test_pixels_of_a_request_that_nobody_waits_for_are_let_go_of(server: RunningServer) -> None:
    with Client(server.grpc_url, shared_memory=True) as sharing:
        with pytest.raises(DeadlineExceeded):  # the server works on it for longer, and keeps the region meanwhile
            sharing.detect(PIXELS, [f"label number {index} of many" for index in range(1203)], timeout_s=0.1)
        assert not files()
    assert not regions(server)


def test_a_server_that_knows_no_regions_any_more_is_given_new_ones(server: RunningServer) -> None:
    with Client(server.grpc_url, shared_memory=True) as sharing, ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: sharing.detect(PIXELS, PROMPT), range(6)))
        forget_regions(server)
        with pytest.raises(ServerUnavailable, match=r"started anew .* shared memory\n  fix: ask again"):
            sharing.detect(PIXELS, PROMPT)
        assert not files()
        assert len(sharing.detect(PIXELS, PROMPT)) == 0


def test_the_command_hands_pixels_over_when_asked_to(
    server: RunningServer, client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gdino_client.client.encode_picture", None)  # what is in shared memory is not encoded
    labels = [argument for label in PROMPT for argument in ("--label", label)]
    path = "demo/samples/5-exif-rotated.jpg"
    assert main(["detect", "--url", server.grpc_url, path, *labels, "--raw", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    monkeypatch.undo()
    assert found == client.detect(path, PROMPT).to_dict(file=path)
    assert not regions(server)


def test_a_server_that_cannot_see_the_memory_is_told_so(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        InferenceServerClient,
        "register_system_shared_memory",
        lambda self, name, key, size, register=InferenceServerClient.register_system_shared_memory, **options: register(
            self, name, f"{key}_of_another_host", size, **options
        ),
    )
    with (
        Client(server.grpc_url, shared_memory=True) as sharing,
        pytest.raises(RequestRejected, match="cannot open this machine's shared memory"),
    ):
        sharing.detect(PIXELS, PROMPT)
    assert not files()
