"""The client: one picture and one prompt in, Detections out."""

from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Final, Self

import numpy as np
from PIL import Image

from gdino_client.connection import Connection
from gdino_client.credentials import Credentials
from gdino_client.detections import Detections
from gdino_client.picture import ImageSource, encode_picture, pixels_of, upright_hw
from gdino_client.prompt import parse_prompt
from gdino_client.status import ServerStatus
from gdino_client.tensors import image_tensor, read_detections, request_tensors
from gdino_core.contract import CONTRACT_VERSION, CONTRACT_VERSION_PARAMETER, MODEL_GROUNDING_DINO
from gdino_core.errors import ModelUnavailable

DEFAULT_URL: Final = "127.0.0.1:8001"
DEFAULT_TIMEOUT_S: Final = 30.0


class Client:
    """Asks one server; a context manager, because it holds a connection.

    Nothing is sent before the first call, and a server that goes away and comes back is found again.
    Threads may share a client.

    Args:
        url: HOST:PORT of the server's gRPC service.
        timeout_s: seconds to wait for an answer, unless a call says otherwise.
        shared_memory: hand the pixels of arrays and Pillow pictures over in shared memory, to a server on the same
            host. Without it they are sent as PNG.
        credentials: TLS and the API key, for a server that asks for them; None: plain text without a key.

    Raises:
        ConfigError: `url` is not HOST:PORT, or a key would cross the network in plain text.

    Example:
        >>> with Client() as client:
        ...     client.detect("picture.jpg", ["red circle", "blue star"])
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        shared_memory: bool = False,
        credentials: Credentials | None = None,
    ) -> None:
        self._connection = Connection(url, credentials or Credentials())
        self._shared_memory = shared_memory
        self._timeout_s = timeout_s
        self._contract_checked = False

    def detect(
        self,
        image: ImageSource,
        prompt: str | Sequence[str],
        *,
        box_threshold: float | None = None,
        text_threshold: float | None = None,
        nms_iou: float | None = None,
        max_detections: int | None = None,
        remove_combined: bool | None = None,
        bulk: bool = False,
        timeout_s: float | None = None,
    ) -> Detections:
        """Find what a prompt names in one picture.

        Args:
            image: a path; the bytes of a JPEG, PNG, WebP, BMP, GIF or TIFF; a Pillow picture; or a uint8
                array [H, W, 3], RGB in [0, 255]. The EXIF orientation is applied, of a Pillow picture too: boxes
                are in pixels of the picture as it is looked at.
            prompt: a caption in GroundingDINO's syntax, such as "cat . remote control ."; or a sequence of
                labels, which come back verbatim. A caption's score is its best token's, a label's the mean
                over its tokens; a single label in a sequence is scored as a caption (gdino_client.prompt says
                why).
            box_threshold: keep what scores more, in [0, 1]; the server's default is 0.35.
            text_threshold: tokens that score more make up a caption's phrase, in [0, 1]; the default is 0.25.
            nms_iou: drop a box that overlaps a better one of its label by more, in (0, 1]; by default off.
            max_detections: how many to keep, the best ones; the default is 300.
            remove_combined: keep of a caption's phrase only the part around its best token, so that it never
                joins words of two phrases ("cat remote"); by default off, as in the original.
            bulk: let requests that are not pass by where they wait.
            timeout_s: seconds to wait for the answer, on this side and in the server's queues; the default is the
                client's.

        Raises:
            ImageError: the picture cannot be read on this side.
            PromptError: the prompt is empty, or not text.
            ThresholdError: `max_detections` is beyond 32 bits.
            RequestRejected: the server refuses the picture, the prompt or a threshold, and says why.
            AccessDenied: the server asks for another key.
            ServerUnavailable: nothing answers, or the server is too busy.
            ModelUnavailable: the server does not have the model, or speaks another version of the contract.
            DeadlineExceeded: the answer took too long.
            ServerError: the server failed.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        asked = parse_prompt(prompt)
        tensors = request_tensors(
            asked,
            box_threshold=box_threshold,
            text_threshold=text_threshold,
            nms_iou=nms_iou,
            max_detections=max_detections,
            remove_combined=remove_combined,
        )
        infer = partial(self._connection.infer, MODEL_GROUNDING_DINO, timeout_s=timeout_s, bulk=bulk)
        if self._shared_memory and isinstance(image, Image.Image | np.ndarray):
            pixels = pixels_of(image)
            self._check_contract(timeout_s)
            with self._connection.shared_pixels(pixels, timeout_s) as tensor:
                result = infer([tensor, *tensors])
            return read_detections(result, asked, (pixels.shape[0], pixels.shape[1]))
        data = encode_picture(image)
        self._check_contract(timeout_s)
        result = infer([image_tensor(data), *tensors])
        # After the request: what is no picture gets the server's sentence, which is the better one.
        return read_detections(result, asked, upright_hw(data))

    def status(self, *, timeout_s: float | None = None) -> ServerStatus:
        """Return the server's name, version, readiness and models; of one that shows no list, the model to ask.

        Raises:
            AccessDenied: the server asks for another key.
            ServerUnavailable: nothing answers.
            DeadlineExceeded: the answer took too long.
        """
        return self._connection.status(self._timeout_s if timeout_s is None else timeout_s)

    def close(self) -> None:
        """Close the connection; the client cannot be used afterwards."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check_contract(self, timeout_s: float) -> None:
        if self._contract_checked:
            return
        parameters = self._connection.model_parameters(MODEL_GROUNDING_DINO, timeout_s)
        found = parameters.get(CONTRACT_VERSION_PARAMETER, "none")
        if found != str(CONTRACT_VERSION):
            raise ModelUnavailable(
                f"{MODEL_GROUNDING_DINO} at {self._connection.url} has contract version {found}, "
                f"this client speaks {CONTRACT_VERSION}",
                fix="install the client of the release that the server's models were built with",
            )
        self._contract_checked = True
