"""Send a mixed load, and note what becomes of every request.

Requests come at a fixed rate, whether the ones before are answered or not: as from many users. Among them are pictures
of many sizes, captions, short and long lists of labels, both priorities, and some that have to be refused.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tritonclient.grpc.aio as triton
from tritonclient.grpc import InferInput
from tritonclient.utils import InferenceServerException

from gdino_client.tensors import bytes_tensor
from gdino_core import contract

ANSWERED, REJECTED, REFUSED, FAILED = "answered", "rejected", "refused", "failed"
_REJECTIONS = ("maximum queue size", "timeout expired")  # how Triton says that it has too much to do
_BULK_SHARE, _GARBAGE_SHARE, _CAPTION_SHARE, _LONG_SHARE = 0.7, 0.02, 0.2, 0.01
_LONG_LABELS = 150  # which fill more than one prompt
_LEAST_ASKED = 2  # times that each client asks while the capacity is measured
_LOST_S = 600.0  # a request without an answer for so long gets none


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one request.

    Attributes:
        kind: ANSWERED; REJECTED because the server has too much to do; REFUSED because the request is bad, as it
            should be; FAILED for anything else.
        priority: of the request.
        seconds: until the answer.
        message: of an error.
    """

    kind: str
    priority: int
    seconds: float
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What requests are made of.

    Attributes:
        pictures: encoded.
        labels: to ask for.
        seed: of the choice.
    """

    pictures: Sequence[bytes]
    labels: Sequence[str]
    seed: int = 0


async def measure_capacity(grpc_url: str, mix: Mix, clients: int, seconds: float) -> float:
    """Answers a second that a number of clients get who each wait for the last answer.

    Args:
        grpc_url: of the server, HOST:PORT.
        mix: what to send.
        clients: fewer than the queues hold, or requests are rejected.
        seconds: how long to ask, at least twice by each client.
    """
    requests, answered = _Requests(mix), 0
    async with triton.InferenceServerClient(grpc_url) as client:
        started = time.monotonic()

        async def keep_asking() -> None:
            nonlocal answered
            asked = 0
            while asked < _LEAST_ASKED or time.monotonic() - started < seconds:
                outcome = await _ask(client, requests.draw(), timeout_s=None)
                answered += outcome.kind == ANSWERED
                asked += 1

        await asyncio.gather(*(keep_asking() for _ in range(clients)))
    return answered / (time.monotonic() - started)


@dataclass(frozen=True, kw_only=True)
class Load:
    """How a mix is sent.

    Attributes:
        per_s: requests a second.
        seconds: how long.
        timeout_s: that a request may wait before a step.
    """

    per_s: float
    seconds: float
    timeout_s: float


async def hold_load(grpc_url: str, mix: Mix, load: Load) -> list[Outcome]:
    """Send requests at a fixed rate, and wait for the last answers; what became of each."""
    requests, tasks = _Requests(mix), []
    async with triton.InferenceServerClient(grpc_url) as client:
        started = time.monotonic()
        for number in range(round(load.per_s * load.seconds)):
            await asyncio.sleep(max(0.0, started + number / load.per_s - time.monotonic()))
            tasks.append(asyncio.create_task(_ask(client, requests.draw(), load.timeout_s)))
        return await asyncio.gather(*tasks)


@dataclass(frozen=True, kw_only=True)
class _Request:
    inputs: list[InferInput]
    priority: int
    is_bad: bool


class _Requests:
    """Draws requests of a mix; tensors are made once."""

    def __init__(self, mix: Mix) -> None:
        self._random = random.Random(mix.seed)
        self._pictures = [bytes_tensor(contract.IMAGE, [picture]) for picture in mix.pictures]
        self._garbage = bytes_tensor(contract.IMAGE, [mix.pictures[0][:500]])
        labels = [label.encode() for label in mix.labels]
        self._captions = [bytes_tensor(contract.PROMPT, [b" . ".join(labels[:count])]) for count in (1, 3, 6)]
        self._lists = [bytes_tensor(contract.PROMPT, labels[:count]) for count in (2, 5, len(labels))]
        many = [b"%s number %d" % (labels[index % len(labels)], index) for index in range(_LONG_LABELS)]
        self._long = bytes_tensor(contract.PROMPT, many)

    def draw(self) -> _Request:
        choose = self._random
        is_bad = choose.random() < _GARBAGE_SHARE
        kind = choose.random()
        if kind < _LONG_SHARE:
            prompt = self._long
        else:
            prompt = choose.choice(self._captions if kind < _LONG_SHARE + _CAPTION_SHARE else self._lists)
        priority = contract.PRIORITY_BULK if choose.random() < _BULK_SHARE else contract.PRIORITY_INTERACTIVE
        picture = self._garbage if is_bad else choose.choice(self._pictures)
        return _Request(inputs=[picture, prompt], priority=priority, is_bad=is_bad)


async def _ask(client: Any, request: _Request, timeout_s: float | None) -> Outcome:
    started = time.monotonic()
    try:
        await client.infer(
            contract.MODEL_GROUNDING_DINO,
            request.inputs,
            priority=request.priority,
            timeout=timeout_s and round(timeout_s * 1e6),
            client_timeout=_LOST_S,
        )
    except InferenceServerException as error:
        kind, message = _kind_of(error, request), f"{error.status()}: {error.message()}"
    else:
        kind, message = (FAILED, "a damaged picture was answered") if request.is_bad else (ANSWERED, "")
    return Outcome(kind=kind, priority=request.priority, seconds=time.monotonic() - started, message=message)


def _kind_of(error: InferenceServerException, request: _Request) -> str:
    code, message = str(error.status()), error.message() or ""
    if code.endswith("UNAVAILABLE") and any(reason in message for reason in _REJECTIONS):
        return REJECTED
    if code.endswith("INVALID_ARGUMENT") and request.is_bad:
        return REFUSED
    return FAILED
