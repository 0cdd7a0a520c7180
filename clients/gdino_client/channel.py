"""Open the gRPC channel to one Triton server."""

import re
from collections.abc import Mapping
from typing import Any, Final

from tritonclient.grpc import InferenceServerClient, InferenceServerClientPlugin

from gdino_client.credentials import Credentials
from gdino_core.errors import ConfigError

_HOST_PORT: Final = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})")
_LOOPBACK: Final = re.compile(r"localhost|127\.[0-9.]+|\[::1\]")


def open_channel(url: str, credentials: Credentials, headers: Mapping[str, str] | None = None) -> InferenceServerClient:
    """Open a channel; nothing is sent before the first call.

    Args:
        url: HOST:PORT of the server's gRPC service.
        credentials: of this client.
        headers: of every call, beside those of the credentials.

    Raises:
        ConfigError: `url` is not HOST:PORT, or a key would cross the network in plain text.
    """
    match = _HOST_PORT.fullmatch(url)
    if not match or not 1 <= int(match["port"]) <= 65535:
        raise ConfigError(
            f"the server's address is {url!r}, not HOST:PORT",
            fix="give host and gRPC port without http://, such as 127.0.0.1:8001",
        )
    is_loopback = bool(_LOOPBACK.fullmatch(match["host"]))
    if credentials.api_key and not credentials.tls_ca and not is_loopback:
        raise ConfigError(
            f"the API key would go to {url} in plain text, for all on the way to read",
            fix="use TLS (tls_ca, --tls-ca), or a tunnel that ends on this machine",
        )
    channel = InferenceServerClient(
        url,
        ssl=credentials.tls_ca is not None,
        root_certificates=_path(credentials.tls_ca),
        private_key=_path(credentials.tls_key),
        certificate_chain=_path(credentials.tls_cert),
        channel_args=_options(is_loopback, credentials.tls_name),
    )
    all_headers = {**credentials.headers, **(headers or {})}
    if all_headers:
        channel.register_plugin(_Headers(all_headers))
    return channel


class _Headers(InferenceServerClientPlugin):  # type: ignore[misc]  # tritonclient has no types
    """Adds headers to every call."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def __call__(self, request: Any) -> None:
        request.headers = {**(request.headers or {}), **self._headers}


def _path(file: object) -> str | None:
    return None if file is None else str(file)


def _options(is_loopback: bool, tls_name: str) -> list[tuple[str, int | str]]:
    options: list[tuple[str, int | str]] = [
        # No limit of gRPC's: the server has one on pictures, and says what it is.
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        # Notices a peer that vanished. Triton bears two pings without data between, and no more are sent.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.max_pings_without_data", 2),
        # A server that comes back is found within a second, not within gRPC's two minutes.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    ]
    if is_loopback:
        options.append(("grpc.enable_http_proxy", 0))  # gRPC would ask $http_proxy for this very machine
    if tls_name:
        options.append(("grpc.ssl_target_name_override", tls_name))
    return options
