"""A gRPC server that speaks Triton's protocol and gives canned answers; no model and no Triton behind it.

The wire is real: client and server exchange Triton's messages over a loopback port, so that status codes,
deadlines and tensors arrive as they do from a Triton server. The sentences in the tests are those that
tritonserver 2.51.0 was seen to say.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

Boxes = Sequence[tuple[float, float, float, float]]
_DATATYPES = {"float32": "FP32", "int32": "INT32", "object": "BYTES"}
_NUMPY_TYPES = {"FP32": np.float32, "INT32": np.int32, "BOOL": np.bool_}


@dataclass(frozen=True)
class Failure:
    """Answer a call with a gRPC status instead."""

    code: grpc.StatusCode
    message: str = ""


def answer(
    labels: Sequence[str] = (),
    scores: Sequence[float] = (),
    boxes: Boxes = (),
    label_index: Sequence[int] = (),
) -> dict[str, np.ndarray[Any, Any]]:
    """The output tensors of one picture."""
    texts = np.empty((1, len(labels)), dtype=np.object_)
    texts[0, :] = [label.encode() for label in labels]
    return {
        "BOXES": np.array(boxes, dtype=np.float32).reshape(1, len(boxes), 4),
        "SCORES": np.array([scores], dtype=np.float32),
        "LABELS": texts,
        "LABEL_INDEX": np.array([label_index], dtype=np.int32),
    }


@dataclass
class CannedServer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # has no types
    """What the server is to say, and what it was asked; `url` is set while it listens."""

    url: str = ""
    outputs: dict[str, np.ndarray[Any, Any]] = field(default_factory=answer)
    refuse: Callable[[dict[str, Any]], Failure | None] = lambda tensors: None
    config_failure: Failure | None = None
    parameters: dict[str, str] = field(default_factory=lambda: {"contract_version": "1"})
    models: list[tuple[str, str, str, str]] = field(
        default_factory=lambda: [("grounding_dino", "1", "READY", ""), ("detector", "1", "READY", "")]
    )
    live: bool = True
    delay_s: float = 0.0
    requests: list[dict[str, Any]] = field(default_factory=list)
    config_requests: int = 0

    def ServerLive(self, request: Any, context: Any) -> Any:
        return pb.ServerLiveResponse(live=self.live)

    def ServerReady(self, request: Any, context: Any) -> Any:
        return pb.ServerReadyResponse(ready=all(state == "READY" for _, _, state, _ in self.models))

    def ServerMetadata(self, request: Any, context: Any) -> Any:
        return pb.ServerMetadataResponse(name="triton", version="2.51.0")

    def RepositoryIndex(self, request: Any, context: Any) -> Any:
        index = [
            pb.RepositoryIndexResponse.ModelIndex(name=name, version=version, state=state, reason=reason)
            for name, version, state, reason in self.models
        ]
        return pb.RepositoryIndexResponse(models=index)

    def ModelConfig(self, request: Any, context: Any) -> Any:
        self.config_requests += 1
        if self.config_failure:
            context.abort(self.config_failure.code, self.config_failure.message)
        if request.name not in [name for name, *_ in self.models]:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}' is not found")
        response = pb.ModelConfigResponse()
        for name, value in self.parameters.items():
            response.config.parameters[name].string_value = value
        return response

    def ModelInfer(self, request: Any, context: Any) -> Any:
        tensors = _read_tensors(request)
        self.requests.append({"model": request.model_name, **tensors})
        time.sleep(self.delay_s)
        failure = self.refuse(tensors)
        if failure:
            context.abort(failure.code, failure.message)
        response = pb.ModelInferResponse(model_name=request.model_name, model_version="1")
        for name, array in self.outputs.items():
            response.outputs.add(name=name, datatype=_DATATYPES[str(array.dtype)], shape=array.shape)
            response.raw_output_contents.append(_raw(array))
        return response


@contextmanager
def listening(server: CannedServer, address: str = "127.0.0.1:0") -> Iterator[CannedServer]:
    """Let a server listen on a loopback port, a free one by default."""
    transport = grpc.server(ThreadPoolExecutor(max_workers=4), options=[("grpc.max_receive_message_length", -1)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(server, transport)
    server.url = f"127.0.0.1:{transport.add_insecure_port(address)}"
    transport.start()
    try:
        yield server
    finally:
        stopped: threading.Event = transport.stop(grace=None)
        stopped.wait(timeout=10)


def _read_tensors(request: Any) -> dict[str, Any]:
    tensors: dict[str, Any] = {}
    for described, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        if described.datatype == "BYTES":
            values = deserialize_bytes_tensor(raw)
        else:
            values = np.frombuffer(raw, dtype=_NUMPY_TYPES[described.datatype])
        tensors[described.name] = values.reshape(tuple(described.shape))
    return tensors


def _raw(array: np.ndarray[Any, Any]) -> bytes:
    if array.dtype != np.object_:
        return array.tobytes()
    return bytes(serialize_byte_tensor(array).item()) if array.size else b""
