"""A real server with mutual TLS and keys: whom it refuses, how, and that its other clients do not notice."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from gdino_build.security.certificates import DEFAULT_NAMES, make_certificates
from gdino_build.serve import RunningServer
from gdino_client import AccessDenied, Client, Credentials, RequestRejected, ServerUnavailable
from gdino_client.channel import open_channel
from tests.security.conftest import Secrets
from tests.security.half_open import half_open
from tests.security.others import LABELS, PICTURE, others_unharmed

pytestmark = pytest.mark.server

CONTROL_CALLS: dict[str, Callable[[InferenceServerClient], Any]] = {
    "list models": lambda channel: channel.get_model_repository_index(),
    "load": lambda channel: channel.load_model("grounding_dino"),
    "unload": lambda channel: channel.unload_model("grounding_dino"),
    "statistics": lambda channel: channel.get_inference_statistics(),
    "read log settings": lambda channel: channel.get_log_settings(),
    "log": lambda channel: channel.update_log_settings({"log_verbose_level": 1}),
    "trace": lambda channel: channel.update_trace_settings(settings={"trace_level": ["TENSORS"]}),
    "list shared memory": lambda channel: channel.get_system_shared_memory_status(),
    "share memory": lambda channel: channel.register_system_shared_memory("stolen", "/gdino", 16),
    "share a GPU's memory": lambda channel: channel.get_cuda_shared_memory_status(),
}


@pytest.fixture(autouse=True)
def others_ask_meanwhile(server: RunningServer, credentials: Credentials) -> Iterator[None]:
    """Whatever a test does to the server, another client's requests are answered."""
    with others_unharmed(server.grpc_url, credentials):
        yield


def refusal(url: str, credentials: Credentials, call: Callable[[InferenceServerClient], Any]) -> str:
    with open_channel(url, credentials) as channel, pytest.raises(InferenceServerException) as caught:
        call(channel)
    return f"{caught.value.status()}: {caught.value.message()}"


@pytest.mark.parametrize(
    ("key", "said"), [("", "asks for an API key"), ("x" * 43, "does not let this client's API key")]
)
def test_without_the_key_nothing_is_answered(
    server: RunningServer, credentials: Credentials, key: str, said: str
) -> None:
    with Client(server.grpc_url, credentials=replace(credentials, api_key=key)) as stranger:
        with pytest.raises(AccessDenied, match=said):
            stranger.detect(PICTURE, LABELS)
        with pytest.raises(AccessDenied, match=said):
            stranger.status()


def test_inference_itself_and_not_only_what_a_client_asks_before_it_takes_the_key(
    server: RunningServer, credentials: Credentials
) -> None:
    said = refusal(server.grpc_url, replace(credentials, api_key=""), lambda channel: channel.infer("detector", []))
    assert said == (
        "StatusCode.UNAVAILABLE: "
        "This protocol is restricted, expecting header 'triton-grpc-protocol-gdino-inference-key'"
    )


@pytest.mark.parametrize("call", CONTROL_CALLS.values(), ids=CONTROL_CALLS)
def test_control_takes_a_key_of_its_own(
    server: RunningServer, credentials: Credentials, call: Callable[[InferenceServerClient], Any]
) -> None:
    for key in ("", credentials.api_key):
        said = refusal(server.grpc_url, replace(credentials, api_key=key), call)
        assert said == (
            "StatusCode.UNAVAILABLE: "
            "This protocol is restricted, expecting header 'triton-grpc-protocol-gdino-control-key'"
        )


def test_who_has_the_control_key_sees_the_server_and_yet_cannot_change_its_models(
    server: RunningServer, credentials: Credentials
) -> None:
    with open_channel(server.grpc_url, credentials, server.access.control_headers) as channel:
        assert {stats.name for stats in channel.get_inference_statistics().model_stats} >= {"detector"}
        for change in (channel.load_model, channel.unload_model):
            with pytest.raises(InferenceServerException, match="explicit model load / unload is not allowed"):
                change("detector")
        with pytest.raises(InferenceServerException, match="log file location can not be updated"):
            channel.update_log_settings({"log_file": "/tmp/gdino-written-by-a-stranger"})
    assert not Path("/tmp/gdino-written-by-a-stranger").exists()


def test_the_inference_key_opens_no_shared_memory(server: RunningServer, credentials: Credentials) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    with (
        Client(server.grpc_url, credentials=credentials, shared_memory=True) as client,
        pytest.raises(AccessDenied, match="shared memory may take a key of its own"),
    ):
        client.detect(pixels, LABELS)
    assert not list(Path("/dev/shm").glob(f"gdino_client_{os.getpid()}_*"))


def test_plain_text_is_refused(server: RunningServer) -> None:
    with Client(server.grpc_url) as client, pytest.raises(ServerUnavailable) as caught:
        client.detect(PICTURE, LABELS)
    assert caught.value.fix.endswith("one with TLS may ask for --tls-ca")


@pytest.mark.parametrize("certificate", ["none", "of another authority"])
def test_without_a_certificate_of_its_authority_nobody_is_answered(
    server: RunningServer, credentials: Credentials, tmp_path: Path, certificate: str
) -> None:
    make_certificates(tmp_path, DEFAULT_NAMES)
    stranger = replace(credentials, tls_cert=None, tls_key=None)
    if certificate != "none":
        stranger = replace(credentials, tls_cert=tmp_path / "client.pem", tls_key=tmp_path / "client.key")
    with Client(server.grpc_url, credentials=stranger) as client, pytest.raises(ServerUnavailable) as caught:
        client.status()
    assert caught.value.fix.endswith("one with TLS may ask for another --tls-ca, or --tls-cert")


def test_a_client_sends_nothing_to_a_server_whose_certificate_it_does_not_know(
    server: RunningServer, credentials: Credentials, tmp_path: Path
) -> None:
    make_certificates(tmp_path, DEFAULT_NAMES)
    for mistaken in (replace(credentials, tls_ca=tmp_path / "ca.pem"), replace(credentials, tls_name="elsewhere")):
        with Client(server.grpc_url, credentials=mistaken) as client, pytest.raises(ServerUnavailable):
            client.status()


def test_an_oversized_picture_is_refused_with_the_limit(server: RunningServer, credentials: Credentials) -> None:
    with (
        Client(server.grpc_url, credentials=credentials) as client,
        pytest.raises(RequestRejected, match="IMAGE has 34603008 bytes, the limit is 33554432"),
    ):
        client.detect(bytes(33 << 20), LABELS)


def test_many_half_open_connections_keep_no_client_out(
    server: RunningServer, secrets: Secrets, credentials: Credentials
) -> None:
    certificate = (secrets.folder / "client.pem", secrets.folder / "client.key")
    with (
        half_open(("127.0.0.1", server.ports.grpc), secrets.folder / "ca.pem", 100, certificate),
        Client(server.grpc_url, credentials=credentials) as client,
    ):
        for _ in range(20):
            assert set(client.detect(PICTURE, LABELS).labels) == set(LABELS)


def test_it_listens_for_grpc_and_metrics_on_loopback_and_for_nothing_else(server: RunningServer) -> None:
    sockets = {os.readlink(link) for link in Path(f"/proc/{server.pid}/fd").iterdir() if link.is_symlink()}
    rows = [
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    # 127.0.0.1, or ::ffff:127.0.0.1, which ends alike
    listening = {row[1][-13:] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}
    assert listening == {f"0100007F:{port:04X}" for port in (server.ports.grpc, server.ports.metrics)}


def test_other_users_of_the_machine_cannot_read_pictures_in_shared_memory(server: RunningServer) -> None:
    regions = list(Path("/dev/shm").glob(server.drain_file.name.removesuffix("drain") + "*"))
    assert len(regions) > 3
    assert {region.stat().st_mode & 0o777 for region in regions} == {0o600}


def test_no_log_has_a_key(server: RunningServer) -> None:
    log = server.log_file.read_text(errors="replace")
    assert "Started GRPCInferenceService" in log
    assert server.access.inference_key not in log
    assert server.access.control_key not in log
