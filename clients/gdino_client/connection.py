"""The gRPC channel to one Triton server; what goes wrong on it leaves as an error of gdino_core.errors."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferenceServerClient, InferInput, InferResult
from tritonclient.utils import InferenceServerException

from gdino_client.shared_memory import SharedPixels
from gdino_client.status import ModelStatus, ServerStatus
from gdino_core.contract import PRIORITY_BULK, PRIORITY_INTERACTIVE
from gdino_core.errors import (
    ConfigError,
    DeadlineExceeded,
    GdinoError,
    ModelUnavailable,
    RequestRejected,
    ServerError,
    ServerUnavailable,
)

START_COMMAND: Final = "make serve PROFILE=demo-cpu"

_HOST_PORT: Final = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})")
_LOOPBACK: Final = re.compile(r"localhost|127\.[0-9.]+|\[::1\]")
_PROBE_TIMEOUT_S: Final = 2.0
# Triton puts these in front of what a step says.
_PREFIXES: Final = re.compile(r"^(in ensemble '[^']*', |\[request id: [^\]]*\] )+")


class Connection:
    """Calls of one server, each with a deadline.

    Args:
        url: HOST:PORT of the server's gRPC service.

    Raises:
        ConfigError: `url` is not HOST:PORT.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._triton = InferenceServerClient(url, channel_args=_channel_options(url))
        self._pixels = SharedPixels(self._triton, url)

    def close(self) -> None:
        """Close the channel; nothing can be called afterwards."""
        self._pixels.close()
        self._triton.close()

    @contextmanager
    def shared_pixels(self, pixels: npt.NDArray[np.uint8], timeout_s: float) -> Iterator[InferInput]:
        """Give the tensor IMAGE_RGB of one request, whose pixels lie in memory that the server shares.

        Args:
            pixels: uint8 [H, W, 3], RGB in [0, 255].
            timeout_s: of the request.

        Raises:
            RequestRejected: the server cannot open this machine's shared memory; else as infer().
        """
        with self._translated(timeout_s), self._pixels.tensor_of(pixels) as tensor:
            yield tensor

    def infer(self, model: str, inputs: Sequence[InferInput], timeout_s: float, *, bulk: bool = False) -> InferResult:
        """Send one request and wait for its answer; the server need not answer later either.

        Raises:
            ServerUnavailable: nothing answers, or the server takes no more requests now.
            ModelUnavailable: the server does not have `model`.
            RequestRejected: the server says that the request is wrong.
            DeadlineExceeded: no answer came within `timeout_s`.
            ServerError: the server failed at it.
        """
        with self._translated(timeout_s):
            return self._triton.infer(
                model,
                list(inputs),
                priority=PRIORITY_BULK if bulk else PRIORITY_INTERACTIVE,
                timeout=max(1, round(timeout_s * 1e6)),
                client_timeout=timeout_s,
            )

    def model_parameters(self, model: str, timeout_s: float) -> dict[str, str]:
        """Return the `parameters` of a model's config.pbtxt; raises as infer()."""
        with self._translated(timeout_s):
            response = self._triton.get_model_config(model, client_timeout=timeout_s)
        return {name: value.string_value for name, value in response.config.parameters.items()}

    def status(self, timeout_s: float) -> ServerStatus:
        """Return what the server says of itself; raises as infer()."""
        with self._translated(timeout_s):
            metadata = self._triton.get_server_metadata(client_timeout=timeout_s)
            return ServerStatus(
                name=metadata.name,
                version=metadata.version,
                ready=self._triton.is_server_ready(client_timeout=timeout_s),
                models=self._models(timeout_s),
            )

    def _models(self, timeout_s: float) -> tuple[ModelStatus, ...]:
        index = self._triton.get_model_repository_index(client_timeout=timeout_s)
        models = (
            ModelStatus(name=model.name, version=model.version, state=model.state, reason=model.reason)
            for model in index.models
        )
        return tuple(sorted(models, key=lambda model: (model.name, model.version)))

    @contextmanager
    def _translated(self, timeout_s: float) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as error:
            raise self._translate(error, timeout_s) from error

    def _translate(self, error: InferenceServerException, timeout_s: float) -> GdinoError:
        code = str(error.status()).removeprefix("StatusCode.")
        message, fix = _sentence_and_fix(error.message() or "")
        if code == "DEADLINE_EXCEEDED":
            return DeadlineExceeded(
                f"no answer from {self.url} within {timeout_s:g} s",
                fix="wait longer (timeout_s, or --timeout), or check that the address is right",
            )
        if "Unable to find shared memory region" in message:
            return ServerUnavailable(
                f"the server at {self.url} was started anew and does not know this client's shared memory",
                fix="ask again: the client then shares it anew",
            )
        if code == "NOT_FOUND" or "unknown model" in message:
            return self._model_unavailable(message)
        if code == "UNAVAILABLE":
            return self._unavailable(message)
        if code == "UNIMPLEMENTED":
            return ServerUnavailable(
                f"what answers at {self.url} is not a Triton server: {message}",
                fix="give the address of its gRPC service, HOST:PORT; the port is 8001 unless it was changed",
            )
        if code in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"):
            return RequestRejected(message, fix=fix)
        return ServerError(
            f"the server at {self.url} failed ({code}): {message}", fix=fix or "the server's log says more"
        )

    def _unavailable(self, message: str) -> GdinoError:
        # gRPC says UNAVAILABLE when nothing listens, and Triton when its queue is full or it is stopping.
        try:
            live = self._triton.is_server_live(client_timeout=_PROBE_TIMEOUT_S)
        except InferenceServerException:
            live = False
        if live:
            return ServerUnavailable(
                f"the server at {self.url} takes no more requests now: {message}", fix="send it again later"
            )
        return ServerUnavailable(
            # The last of gRPC's clauses, such as "Connection refused", is the cause.
            f"no Triton server answers at {self.url} ({message.rpartition(': ')[2].rstrip(']')})",
            fix=f"start one with `{START_COMMAND}`, or give the address of its gRPC service",
        )

    def _model_unavailable(self, message: str) -> GdinoError:
        try:
            models = self._models(_PROBE_TIMEOUT_S)
        except InferenceServerException:
            models = ()
        ready = ", ".join(f"{model.name} (version {model.version})" for model in models if model.ready)
        reasons = "".join(
            f"; {model.name} is not: {_first_line(model.reason)}"
            for model in models
            if model.reason and not model.ready
        )
        return ModelUnavailable(
            f"the server at {self.url} says: {message}; ready are: {ready or 'no models'}{reasons}",
            fix="serve a repository that was built for this client, for example with "
            f"`{START_COMMAND}`; `gdino status` lists what a server has",
        )


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _sentence_and_fix(message: str) -> tuple[str, str]:
    # Our models send str(GdinoError); see there.
    sentence, _, fix = _PREFIXES.sub("", message).partition("\n  fix: ")
    return sentence, fix


def _channel_options(url: str) -> list[tuple[str, int]]:
    match = _HOST_PORT.fullmatch(url)
    if not match or not 1 <= int(match["port"]) <= 65535:
        raise ConfigError(
            f"the server's address is {url!r}, not HOST:PORT",
            fix="give host and gRPC port without http://, such as 127.0.0.1:8001",
        )
    options = [
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
    if _LOOPBACK.fullmatch(match["host"]):
        options.append(("grpc.enable_http_proxy", 0))  # gRPC would ask $http_proxy for this very machine
    return options
