"""The gRPC channel to one Triton server; what goes wrong on it leaves as an error of gdino_core.errors."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferInput, InferResult
from tritonclient.utils import InferenceServerException

from gdino_client.channel import open_channel
from gdino_client.credentials import Credentials
from gdino_client.shared_memory import SharedPixels
from gdino_client.status import ModelStatus, ServerStatus
from gdino_core.contract import MODEL_GROUNDING_DINO, PRIORITY_BULK, PRIORITY_INTERACTIVE
from gdino_core.errors import (
    AccessDenied,
    DeadlineExceeded,
    GdinoError,
    ModelUnavailable,
    RequestRejected,
    ServerError,
    ServerUnavailable,
)

START_COMMAND: Final = "make serve PROFILE=demo-cpu"

_PROBE_TIMEOUT_S: Final = 2.0
# Triton puts these in front of what a step says.
_PREFIXES: Final = re.compile(r"^(in ensemble '[^']*', |\[request id: [^\]]*\] )+")


class Connection:
    """Calls of one server, each with a deadline.

    Args:
        url: HOST:PORT of the server's gRPC service.
        credentials: of this client.

    Raises:
        ConfigError: `url` is not HOST:PORT, or a key would cross the network in plain text.
    """

    def __init__(self, url: str, credentials: Credentials) -> None:
        self.url = url
        self._credentials = credentials
        self._triton = open_channel(url, credentials)
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
                models=self._models_shown(timeout_s),
            )

    def _models_shown(self, timeout_s: float) -> tuple[ModelStatus, ...]:
        """All models; where the list is for those alone who control the server, the one that clients ask."""
        try:
            return self._models(timeout_s)
        except InferenceServerException as error:
            if not (_is_denied(error) or _code(error) == "UNIMPLEMENTED"):
                raise
        is_ready = self._triton.is_model_ready(MODEL_GROUNDING_DINO, client_timeout=timeout_s)
        state = "READY" if is_ready else "UNAVAILABLE"
        return (ModelStatus(name=MODEL_GROUNDING_DINO, version="", state=state, reason=""),)

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
        code = _code(error)
        message, fix = _sentence_and_fix(error.message() or "")
        if _is_denied(error):
            return self._denied()
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

    def _denied(self) -> GdinoError:
        if self._credentials.api_key:
            return AccessDenied(
                f"the server at {self.url} does not let this client's API key do that",
                fix="ask who runs it for the right key; shared memory may take a key of its own",
            )
        return AccessDenied(
            f"the server at {self.url} asks for an API key",
            fix="give one: --api-key file:PATH or env:NAME, Credentials(api_key=...)",
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
        # The last of gRPC's clauses, such as "Connection refused", is the cause.
        cause = message.rpartition(": ")[2].rstrip("]")
        fix = f"start one with `{START_COMMAND}`, or give the address of its gRPC service"
        if "refused" not in cause:  # something listens, and hangs up: as with a client that does not speak its TLS
            needs = "another --tls-ca, or --tls-cert" if self._credentials.tls_ca else "--tls-ca"
            fix += f"; one with TLS may ask for {needs}"
        return ServerUnavailable(f"no Triton server answers at {self.url} ({cause})", fix=fix)

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


def _code(error: InferenceServerException) -> str:
    return str(error.status()).removeprefix("StatusCode.")


def _is_denied(error: InferenceServerException) -> bool:
    # Triton says UNAVAILABLE of a protocol that asks for another key, a gateway what gRPC has for it.
    return _code(error) in ("UNAUTHENTICATED", "PERMISSION_DENIED") or "protocol is restricted" in str(error.message())


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _sentence_and_fix(message: str) -> tuple[str, str]:
    # Our models send str(GdinoError); see there.
    sentence, _, fix = _PREFIXES.sub("", message).partition("\n  fix: ")
    return sentence, fix
