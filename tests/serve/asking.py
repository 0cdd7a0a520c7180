"""Requests to a server, without gdino_client: what is tested is the server."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image
from tritonclient import grpc

from gdino_build.serve import RunningServer
from gdino_core import contract

_OUTPUTS = (contract.BOXES, contract.SCORES, contract.LABELS, contract.LABEL_INDEX)
_OPTION_TYPES = {contract.MAX_DETECTIONS: "INT32", contract.REMOVE_COMBINED: "BOOL"}
_TIMEOUT_S = 60
Answer = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Question:
    image: bytes
    prompt: tuple[str, ...]
    options: tuple[tuple[str, float], ...] = ()


def png(height: int, width: int, brightness: int = 200) -> bytes:
    file = BytesIO()
    Image.fromarray(np.full((height, width, 3), brightness, np.uint8)).save(file, "PNG")
    return file.getvalue()


def ask(server: RunningServer, question: Question) -> Answer:
    with grpc.InferenceServerClient(server.grpc_url) as client:
        return _infer(client, question)


def ask_together(server: RunningServer, questions: list[Question]) -> list[Future[Answer]]:
    with (
        grpc.InferenceServerClient(server.grpc_url) as client,
        ThreadPoolExecutor(len(questions)) as threads,
    ):
        return [threads.submit(_infer, client, question) for question in questions]


def cache_hits(server: RunningServer, model: str) -> int:
    with grpc.InferenceServerClient(server.grpc_url) as client:
        (statistics,) = client.get_inference_statistics(model).model_stats
        return statistics.inference_stats.cache_hit.count


def tensor(name: str, values: list[object], data_type: str, batch: int = 1) -> grpc.InferInput:
    numpy_type = {"BYTES": np.object_, "FP32": np.float32, "INT32": np.int32, "BOOL": np.bool_}[data_type]
    made = grpc.InferInput(name, [batch, len(values)], data_type)
    made.set_data_from_numpy(np.array([values] * batch, dtype=numpy_type))
    return made


def _infer(client: grpc.InferenceServerClient, question: Question) -> Answer:
    inputs = [
        tensor(contract.IMAGE, [question.image], "BYTES"),
        tensor(contract.PROMPT, [text.encode() for text in question.prompt], "BYTES"),
    ]
    for name, value in question.options:
        inputs.append(tensor(name, [value], _OPTION_TYPES.get(name, "FP32")))
    result = client.infer(contract.MODEL_GROUNDING_DINO, inputs, client_timeout=_TIMEOUT_S)
    return {name: result.as_numpy(name) for name in _OUTPUTS}
