"""A real server with TLS and one key, HTTP asked for, and shared memory opened for its clients."""

import http.client
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gdino_build.security.access import open_access
from gdino_build.security.settings import SecuritySettings
from gdino_build.serve import RunningServer, running_server
from gdino_build.server_ports import ServerPorts
from gdino_client import AccessDenied, Client
from gdino_client.channel import open_channel
from gdino_core.api_keys import CONTROL_KEY, INFERENCE_KEY
from tests.security.conftest import REPOSITORY, Secrets
from tests.security.gateway import unused_port
from tests.security.others import LABELS, PICTURE

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def tls_server(secrets: Secrets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    settings = SecuritySettings(
        tls_cert=secrets.file("server.pem"),
        tls_key=secrets.file("server.key"),
        inference_key=secrets.file("inference.key"),
        shared_memory=True,
        probe_ca=secrets.file("ca.pem"),
        probe_name="localhost",
    )
    log_file = tmp_path_factory.mktemp("tls") / "server.log"
    ports = replace(ServerPorts.unused(), http=unused_port())
    with running_server(REPOSITORY, log_file=log_file, ports=ports, access=open_access(settings)) as running:
        yield running


def ask_http(server: RunningServer, path: str, **headers: str) -> int:
    assert server.ports.http is not None
    connection = http.client.HTTPConnection("127.0.0.1", server.ports.http, timeout=10)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_client_with_the_key_is_answered_and_one_without_is_not(tls_server: RunningServer) -> None:
    credentials = tls_server.access.credentials
    with Client(tls_server.grpc_url, credentials=credentials) as client:
        assert set(client.detect(PICTURE, LABELS).labels) == set(LABELS)
    with (
        Client(tls_server.grpc_url, credentials=replace(credentials, api_key="")) as stranger,
        pytest.raises(AccessDenied, match="asks for an API key"),
    ):
        stranger.detect(PICTURE, LABELS)


def test_a_client_with_the_key_may_share_memory_where_the_profile_says_so(tls_server: RunningServer) -> None:
    with Image.open(PICTURE) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    with Client(tls_server.grpc_url, credentials=tls_server.access.credentials, shared_memory=True) as client:
        assert set(client.detect(pixels, LABELS).labels) == set(LABELS)


def test_http_that_was_asked_for_takes_the_same_keys(tls_server: RunningServer) -> None:
    key = {INFERENCE_KEY.replace("-", "_"): tls_server.access.inference_key}
    assert ask_http(tls_server, "/v2/health/ready") == http.client.OK
    assert ask_http(tls_server, "/v2/models/grounding_dino/config") == http.client.FORBIDDEN
    assert ask_http(tls_server, "/v2/models/grounding_dino/config", **key) == http.client.OK
    assert ask_http(tls_server, "/v2/models/grounding_dino/stats", **key) == http.client.FORBIDDEN
    control = {CONTROL_KEY.replace("-", "_"): tls_server.access.control_key}
    assert ask_http(tls_server, "/v2/models/grounding_dino/stats", **control) == http.client.OK


def test_the_log_is_quiet_once_the_server_is_ready(tls_server: RunningServer) -> None:
    with open_channel(tls_server.grpc_url, tls_server.access.credentials, tls_server.access.control_headers) as channel:
        assert channel.get_log_settings().settings["log_verbose_level"].uint32_param == 0
