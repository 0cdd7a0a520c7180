"""Whatever goes wrong between client and server is told in a sentence that helps."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from grpc import StatusCode

from gdino_client import (
    Client,
    DeadlineExceeded,
    GdinoError,
    ModelUnavailable,
    RequestRejected,
    ServerError,
    ServerUnavailable,
)
from gdino_core.errors import ConfigError
from tests.client.canned_server import CannedServer, Failure
from tests.client.conftest import MakePicture

ROOT = Path(__file__).resolve().parents[2]


def failing_detect(server: CannedServer, client: Client, picture: bytes, failure: Failure) -> GdinoError:
    server.refuse = lambda tensors: failure
    with pytest.raises(GdinoError) as caught:
        client.detect(picture, "cat .")
    return caught.value


def test_no_server_names_the_address_and_the_command_that_starts_one(make_picture: MakePicture) -> None:
    with socket.socket() as taken_but_not_listening:
        taken_but_not_listening.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{taken_but_not_listening.getsockname()[1]}"
        with Client(url) as client, pytest.raises(ServerUnavailable) as caught:
            client.detect(make_picture(), "cat .")
    assert str(caught.value) == (
        f"no Triton server answers at {url} (Connection refused)\n"
        "  fix: start one with `make serve PROFILE=demo-cpu`, or give the address of its gRPC service"
    )


def test_a_full_queue_is_not_taken_for_a_missing_server(
    server: CannedServer, client: Client, make_picture: MakePicture
) -> None:
    sentence = "in ensemble 'grounding_dino', [request id: <id_unknown>] Exceeds maximum queue size"
    error = failing_detect(server, client, make_picture(), Failure(StatusCode.UNAVAILABLE, sentence))
    assert type(error) is ServerUnavailable
    assert str(error) == (
        f"the server at {server.url} takes no more requests now: Exceeds maximum queue size\n  fix: send it again later"
    )


def test_a_missing_model_lists_the_models_that_are_ready_and_why_others_are_not(
    server: CannedServer, client: Client, make_picture: MakePicture
) -> None:
    server.models = [
        ("text_encoder", "1", "READY", ""),
        ("detector", "1", "UNAVAILABLE", "Internal: RuntimeError: no engine\n\nAt:\n  model.py"),
    ]
    with pytest.raises(ModelUnavailable) as caught:
        client.detect(make_picture(), "cat .")
    assert str(caught.value).startswith(
        f"the server at {server.url} says: Request for unknown model: 'grounding_dino' is not found; "
        "ready are: text_encoder (version 1); detector is not: Internal: RuntimeError: no engine\n"
        "  fix: serve a repository"
    )


def test_a_model_that_is_loading_is_unavailable_and_not_the_server(
    server: CannedServer, client: Client, make_picture: MakePicture
) -> None:
    server.models = []
    server.config_failure = Failure(
        StatusCode.UNAVAILABLE, "Request for unknown model: 'grounding_dino' has no available versions"
    )
    with pytest.raises(ModelUnavailable, match="has no available versions; ready are: no models\n"):
        client.detect(make_picture(), "cat .")


def test_a_refusal_is_the_servers_sentence_with_its_fix(
    server: CannedServer, client: Client, make_picture: MakePicture
) -> None:
    sentence = "in ensemble 'grounding_dino', BOX_THRESHOLD is 2.0\n  fix: give a probability from 0 to 1"
    error = failing_detect(server, client, make_picture(), Failure(StatusCode.INVALID_ARGUMENT, sentence))
    assert isinstance(error, RequestRejected)
    assert error.message == "BOX_THRESHOLD is 2.0"
    assert error.fix == "give a probability from 0 to 1"


def test_what_is_no_picture_is_refused_by_the_server_and_not_guessed_at_here(
    server: CannedServer, client: Client
) -> None:
    sentence = "in ensemble 'grounding_dino', IMAGE is not a picture: 7 bytes"
    error = failing_detect(server, client, b"garbage", Failure(StatusCode.INVALID_ARGUMENT, sentence))
    assert isinstance(error, RequestRejected)
    assert str(error) == "IMAGE is not a picture: 7 bytes"


@pytest.mark.parametrize("code", [StatusCode.INTERNAL, StatusCode.UNKNOWN])
def test_a_failure_inside_the_server_says_so_and_where_to_look(
    server: CannedServer, client: Client, make_picture: MakePicture, code: StatusCode
) -> None:
    sentence = "in ensemble 'grounding_dino', Stub process 'preprocess_0_0' is not healthy."
    error = failing_detect(server, client, make_picture(), Failure(code, sentence))
    assert type(error) is ServerError
    assert str(error) == (
        f"the server at {server.url} failed ({code.name}): Stub process 'preprocess_0_0' is not healthy.\n"
        "  fix: the server's log says more"
    )


def test_a_late_answer_says_how_long_was_waited(
    server: CannedServer, client: Client, make_picture: MakePicture
) -> None:
    client.detect(make_picture(), "cat .")
    server.delay_s = 1.0
    with pytest.raises(DeadlineExceeded, match=rf"no answer from {server.url} within 0\.1 s\n  fix: wait longer"):
        client.detect(make_picture(), "cat .", timeout_s=0.1)


def test_another_service_at_the_address_is_named_as_no_triton_server(
    server: CannedServer, client: Client, make_picture: MakePicture
) -> None:
    server.config_failure = Failure(StatusCode.UNIMPLEMENTED, "Method not found!")
    with pytest.raises(ServerUnavailable, match=r"is not a Triton server: Method not found!\n  fix: .* 8001"):
        client.detect(make_picture(), "cat .")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8001", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:99999", ":8001", ""]
)
def test_an_address_that_is_not_host_and_port_is_refused_at_once(url: str) -> None:
    # gRPC itself takes port 99999 for 34463, and a host alone for port 443.
    with pytest.raises(ConfigError) as caught:
        Client(url)
    assert str(caught.value).startswith(f"the server's address is {url!r}, not HOST:PORT\n  fix: give host and gRPC")


@pytest.mark.parametrize("url", ["localhost:8001", "[::1]:8001", "triton.example:1"])
def test_names_and_ipv6_are_addresses(url: str) -> None:
    Client(url).close()


def test_a_server_on_this_machine_is_not_asked_for_through_the_http_proxy(server: CannedServer) -> None:
    program = f"from gdino_client import Client; Client({server.url!r}, timeout_s=10).status()"
    dead_proxy = "http://127.0.0.1:9"
    subprocess.run(
        [sys.executable, "-c", program],
        env={
            "PYTHONPATH": f"{ROOT}:{ROOT / 'clients'}",
            **dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy"), dead_proxy),
        },
        check=True,
        timeout=60,
    )


def test_status_tells_the_server_and_its_models(server: CannedServer, client: Client) -> None:
    server.models = [("grounding_dino", "1", "READY", ""), ("detector", "1", "UNAVAILABLE", "no engine")]
    status = client.status()
    assert (status.name, status.version, status.ready) == ("triton", "2.51.0", False)
    assert [(model.name, model.ready, model.reason) for model in status.models] == [
        ("detector", False, "no engine"),
        ("grounding_dino", True, ""),
    ]
