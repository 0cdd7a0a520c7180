"""Hand pixels to a server on the same host through shared memory: they are copied once, and never sent."""

import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as regions

from gdino_core import contract
from gdino_core.errors import RequestRejected, ServerUnavailable

_CALL_TIMEOUT_S = 2.0  # for the server to open or forget a region
_CLOSE_TIMEOUT_S = 10.0  # for it to be done with the pixels of requests whose answer nobody waited for
_GRANULE_BYTES = 1 << 20  # regions are multiples of this, so that pictures of about one size share them


@dataclass(frozen=True, kw_only=True)
class _Region:
    name: str
    byte_size: int
    handle: Any


class SharedPixels:
    """Regions that one server knows; each holds the pixels of one request at a time. Threads may share it.

    Args:
        triton: connection to the server.
        url: of the server, for messages.
    """

    def __init__(self, triton: InferenceServerClient, url: str) -> None:
        self._triton, self._url = triton, url
        self._idle: list[_Region] = []
        self._given_up: list[str] = []  # names that the server was to forget, but still uses
        self._lock = threading.Lock()

    @contextmanager
    def tensor_of(self, pixels: npt.NDArray[np.uint8]) -> Iterator[InferInput]:
        """Give the tensor IMAGE_RGB of a request that is sent within the `with` block.

        Args:
            pixels: uint8 [H, W, 3], RGB in [0, 255].

        Raises:
            RequestRejected: the server cannot open this machine's shared memory.
        """
        self._forget_given_up()
        region = self._take(pixels.nbytes)
        try:
            regions.set_shared_memory_region(region.handle, [np.ascontiguousarray(pixels)])
            tensor = InferInput(contract.IMAGE_RGB, [1, *pixels.shape], "UINT8")
            tensor.set_shared_memory(region.name, pixels.nbytes)
            yield tensor
        except BaseException as error:
            self._give_up(region)  # the server may still be reading it
            if isinstance(error, ServerUnavailable):
                self._give_up_idle()  # a server that was started anew does not know them
            raise
        with self._lock:
            self._idle.append(region)

    def close(self) -> None:
        """Let server and machine forget all regions; waits a while for those that the server still uses."""
        self._give_up_idle()
        deadline_s = time.monotonic() + _CLOSE_TIMEOUT_S
        while not self._forget_given_up() and time.monotonic() < deadline_s:
            time.sleep(0.02)

    def _take(self, byte_size: int) -> _Region:
        with self._lock:
            for index, region in enumerate(self._idle):
                if region.byte_size >= byte_size:
                    return self._idle.pop(index)
        return self._create(-(-byte_size // _GRANULE_BYTES) * _GRANULE_BYTES)

    def _create(self, byte_size: int) -> _Region:
        name = f"gdino_client_{os.getpid()}_{secrets.token_hex(8)}"
        handle = regions.create_shared_memory_region(name, f"/{name}", byte_size, create_only=True)
        region = _Region(name=name, byte_size=byte_size, handle=handle)
        try:
            self._triton.register_system_shared_memory(name, f"/{name}", byte_size, client_timeout=_CALL_TIMEOUT_S)
        except BaseException as error:
            self._give_up(region)  # an answer that came too late says nothing of what the server has open
            if not isinstance(error, InferenceServerException) or "shared memory" not in (error.message() or ""):
                raise
            raise RequestRejected(
                f"the server at {self._url} cannot open this machine's shared memory: {error.message()}",
                fix="run the client on the server's host (in containers: --ipc=host on both), or without shared_memory",
            ) from error
        return region

    def _give_up_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        self._give_up(*idle)

    def _give_up(self, *given_up: _Region) -> None:
        for region in given_up:
            regions.destroy_shared_memory_region(region.handle)  # the memory lives on while the server has it open
        with self._lock:
            self._given_up += [region.name for region in given_up]
        self._forget_given_up()

    def _forget_given_up(self) -> bool:
        """Let the server forget what it no longer uses; whether that is all."""
        with self._lock:
            names, self._given_up = self._given_up, []
        used = [name for name in names if self._is_used(name)]
        with self._lock:
            self._given_up += used
            return not self._given_up

    def _is_used(self, name: str) -> bool:
        try:
            self._triton.unregister_system_shared_memory(name, client_timeout=_CALL_TIMEOUT_S)
        except InferenceServerException as error:
            is_slow = error.status() == "StatusCode.DEADLINE_EXCEEDED"
            return is_slow or "in use" in (error.message() or "")  # else the server is gone, and its regions with it
        return False
