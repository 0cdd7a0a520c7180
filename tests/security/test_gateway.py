"""The gateway in a real nginx before a real server: what it lets through, what it says to the rest, and who notices."""

import re
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from tritonclient.utils import InferenceServerException

from gdino_build.security.keys import make_keys
from gdino_build.serve import RunningServer
from gdino_build.server_ports import ServerPorts
from gdino_client import AccessDenied, Client, Credentials, GdinoError, RequestRejected, ServerUnavailable
from gdino_client.channel import open_channel
from gdino_core.api_keys import read_key_file
from tests.security.gateway import TEMPLATE, Gateway, running_gateway, shipped_settings
from tests.security.half_open import all_are_hung_up, half_open
from tests.security.others import LABELS, PICTURE, others_unharmed

pytestmark = pytest.mark.server


@pytest.fixture(autouse=True)
def bob_asks_meanwhile(gateway: Gateway, bob: Credentials) -> Iterator[None]:
    """Whatever a test does to the gateway, another client's requests are answered."""
    with others_unharmed(gateway.url, bob):
        yield


@pytest.fixture
def own_folder(gateway_folder: Path, tmp_path: Path) -> Path:
    """For a gateway with other settings."""
    return Path(shutil.copytree(gateway_folder, tmp_path / "gateway"))


def ask(url: str, credentials: Credentials) -> set[str] | GdinoError:
    with Client(url, credentials=credentials) as client:
        try:
            return set(client.detect(PICTURE, LABELS).labels)
        except GdinoError as error:
            return error


def test_a_client_with_a_key_is_answered_and_named_in_the_log_but_not_its_key(
    gateway: Gateway, alice: Credentials
) -> None:
    assert ask(gateway.url, alice) == set(LABELS)
    with Client(gateway.url, credentials=alice) as client:
        status = client.status()
    assert [(model.name, model.ready) for model in status.models] == [("grounding_dino", True)]
    assert re.search(r'client="alice" "/inference.GRPCInferenceService/ModelInfer" 200 grpc=-0', gateway.log())
    for log in ("access.log", "error.log"):
        assert alice.api_key not in (gateway.folder / log).read_text()


@pytest.mark.parametrize("key", ["", "x" * 43])
def test_without_a_known_key_nothing_but_health_is_told(gateway: Gateway, alice: Credentials, key: str) -> None:
    stranger = replace(alice, api_key=key)
    assert isinstance(ask(gateway.url, stranger), AccessDenied)
    with open_channel(gateway.url, stranger) as channel:
        assert channel.is_server_ready()
        with pytest.raises(InferenceServerException) as caught:
            channel.get_server_metadata()
    assert (caught.value.status(), caught.value.message()) == (
        "StatusCode.UNAUTHENTICATED",
        "no API key that is known here",
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda channel: channel.get_model_repository_index(),
        lambda channel: channel.load_model("grounding_dino"),
        lambda channel: channel.unload_model("grounding_dino"),
        lambda channel: channel.register_system_shared_memory("stolen", "/gdino", 16),
        lambda channel: channel.get_inference_statistics(),
        lambda channel: channel.update_log_settings({"log_verbose_level": 1}),
        lambda channel: channel.update_trace_settings(settings={"trace_level": ["TENSORS"]}),
    ],
)
def test_what_controls_the_server_is_not_offered_even_with_the_servers_own_key(
    gateway: Gateway, server: RunningServer, alice: Credentials, call: object
) -> None:
    assert callable(call)
    with (
        open_channel(gateway.url, alice, server.access.control_headers) as channel,
        pytest.raises(InferenceServerException) as caught,
    ):
        call(channel)
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    assert caught.value.message() == "the gateway does not offer this"


def test_plain_text_is_refused(gateway: Gateway) -> None:
    error = ask(gateway.url, Credentials())
    assert isinstance(error, ServerUnavailable)
    assert error.fix.endswith("one with TLS may ask for --tls-ca")


def test_an_oversized_request_is_cut_off_with_the_limit_before_the_server_has_it(
    gateway: Gateway, server: RunningServer, alice: Credentials
) -> None:
    with Client(gateway.url, credentials=alice) as client:
        with pytest.raises(RequestRejected, match="the request has more than 40 MiB"):
            client.detect(bytes(41 << 20), LABELS)
        with pytest.raises(RequestRejected, match="the limit is 33554432"):  # what the gateway lets through, the server
            client.detect(bytes(33 << 20), LABELS)


def test_who_asks_too_often_is_told_so_and_another_client_is_not(
    server: RunningServer, own_folder: Path, alice: Credentials, bob: Credentials
) -> None:
    with (
        running_gateway(own_folder, server.grpc_url, GATEWAY_RATE="1", GATEWAY_BURST="5") as slow,
        Client(slow.url, credentials=alice) as client,
    ):
        with pytest.raises(ServerUnavailable, match=r"takes no more requests now: too many requests with this key"):
            for _ in range(100):
                client.detect(PICTURE, LABELS)
        assert ask(slow.url, bob) == set(LABELS)


def test_who_has_too_many_requests_open_is_told_so(server: RunningServer, own_folder: Path, alice: Credentials) -> None:
    with (
        running_gateway(own_folder, server.grpc_url, GATEWAY_REQUESTS="1") as narrow,
        Client(narrow.url, credentials=alice) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        client.detect(PICTURE, LABELS)
        asked = [pool.submit(client.detect, PICTURE, LABELS) for _ in range(16)]
        errors = [error for one in asked if (error := one.exception())]
    assert 1 <= len(errors) < 16
    assert all("too many requests with this key" in str(error) for error in errors)


def test_a_key_is_changed_without_a_pause(server: RunningServer, own_folder: Path, alice: Credentials) -> None:
    make_keys(own_folder / "new")
    new = replace(alice, api_key=read_key_file(own_folder / "new" / "inference.key"))
    keys = own_folder / "keys.map"
    with running_gateway(own_folder, server.grpc_url) as gateway:
        assert isinstance(ask(gateway.url, new), AccessDenied)
        keys.write_text(f'{keys.read_text()}"{new.api_key}" "alice";\n')
        gateway.signal(signal.SIGHUP)
        while isinstance(ask(gateway.url, new), AccessDenied):
            time.sleep(0.1)
        assert ask(gateway.url, alice) == ask(gateway.url, new) == set(LABELS)  # both, for as long as it takes
        keys.write_text(
            "".join(line for line in keys.read_text().splitlines(keepends=True) if alice.api_key not in line)
        )
        gateway.signal(signal.SIGHUP)
        while ask(gateway.url, alice) == set(LABELS):
            time.sleep(0.1)
        assert isinstance(ask(gateway.url, alice), AccessDenied)
        assert ask(gateway.url, new) == set(LABELS)


def test_a_server_that_is_down_is_told_as_grpc_tells_it(own_folder: Path, alice: Credentials) -> None:
    for file in own_folder.glob("upstream-*"):
        file.unlink()  # what asks a server with TLS is not needed here
    with (
        running_gateway(own_folder, f"127.0.0.1:{ServerPorts.unused().grpc}", GATEWAY_SCHEME="grpc") as lonely,
        open_channel(lonely.url, alice) as channel,
        pytest.raises(InferenceServerException, match="the server behind the gateway does not answer") as caught,
    ):
        channel.get_server_metadata()
    assert caught.value.status() == "StatusCode.UNAVAILABLE"


def test_who_begins_a_connection_and_does_not_go_on_is_hung_up_on(gateway: Gateway, alice: Credentials) -> None:
    assert alice.tls_ca is not None
    with half_open(("127.0.0.1", gateway.port), alice.tls_ca, 100) as connections:
        assert all_are_hung_up(connections.silent, 30)
        assert all_are_hung_up(connections.in_handshake, 30)
        # nginx bears a header that comes byte by byte; that nobody else notices is what bob shows.
        assert ask(gateway.url, alice) == set(LABELS)


def test_every_variable_of_the_template_is_set_and_told() -> None:
    used = set(re.findall(r"\$\{(\w+)\}", TEMPLATE.read_text()))
    assert set(shipped_settings()) == used
    assert set(re.findall(r"`(GATEWAY_\w+)`", (TEMPLATE.parent / "README.md").read_text())) == used
