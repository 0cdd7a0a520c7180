"""Hand pixels to a server on the same host through shared memory: they are copied once, and never sent."""

import os
import secrets
import threading
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
from gdino_core.errors import RequestRejected

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
        self._lock = threading.Lock()

    @contextmanager
    def tensor_of(self, pixels: npt.NDArray[np.uint8]) -> Iterator[InferInput]:
        """Give the tensor IMAGE_RGB of a request that is sent within the `with` block.

        Args:
            pixels: uint8 [H, W, 3], RGB in [0, 255].

        Raises:
            RequestRejected: the server cannot open this machine's shared memory.
        """
        region = self._take(pixels.nbytes)
        try:
            regions.set_shared_memory_region(region.handle, [np.ascontiguousarray(pixels)])
            tensor = InferInput(contract.IMAGE_RGB, [1, *pixels.shape], "UINT8")
            tensor.set_shared_memory(region.name, pixels.nbytes)
            yield tensor
        except BaseException:
            self._destroy(region)  # the server may still be reading it
            raise
        with self._lock:
            self._idle.append(region)

    def close(self) -> None:
        """Let server and machine forget all regions."""
        with self._lock:
            idle, self._idle = self._idle, []
        for region in idle:
            self._destroy(region)

    def _take(self, byte_size: int) -> _Region:
        with self._lock:
            for index, region in enumerate(self._idle):
                if region.byte_size >= byte_size:
                    return self._idle.pop(index)
        return self._create(-(-byte_size // _GRANULE_BYTES) * _GRANULE_BYTES)

    def _create(self, byte_size: int) -> _Region:
        name = f"gdino_client_{os.getpid()}_{secrets.token_hex(8)}"
        handle = regions.create_shared_memory_region(name, f"/{name}", byte_size, create_only=True)
        try:
            self._triton.register_system_shared_memory(name, f"/{name}", byte_size)
        except InferenceServerException as error:
            regions.destroy_shared_memory_region(handle)
            if "shared memory" not in (error.message() or ""):
                raise
            raise RequestRejected(
                f"the server at {self._url} cannot open this machine's shared memory: {error.message()}",
                fix="run the client on the server's host (in containers: --ipc=host on both), or without shared_memory",
            ) from error
        return _Region(name=name, byte_size=byte_size, handle=handle)

    def _destroy(self, region: _Region) -> None:
        try:
            self._triton.unregister_system_shared_memory(region.name)
        except InferenceServerException:
            pass  # a server that is gone knows no regions
        finally:
            regions.destroy_shared_memory_region(region.handle)
