"""A request as tensors of the contract, and the answer's tensors as Detections."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferInput, InferResult

from gdino_client.detections import Detections
from gdino_client.prompt import Prompt
from gdino_core import contract
from gdino_core.errors import ServerError, ThresholdError


def image_tensor(image: bytes) -> InferInput:
    """Return the tensor of an encoded picture."""
    return bytes_tensor(contract.IMAGE, [image])


def request_tensors(
    prompt: Prompt,
    *,
    box_threshold: float | None,
    text_threshold: float | None,
    nms_iou: float | None,
    max_detections: int | None,
    remove_combined: bool | None,
) -> list[InferInput]:
    """Return the tensors of one request but its picture, each with the leading batch axis of 1; None is left out.

    Raises:
        ThresholdError: `max_detections` is no INT32. The ranges are for the server to check.
    """
    tensors = [bytes_tensor(contract.PROMPT, prompt.elements)]
    for name, value in (
        (contract.BOX_THRESHOLD, box_threshold),
        (contract.TEXT_THRESHOLD, text_threshold),
        (contract.NMS_IOU, nms_iou),
    ):
        if value is not None:
            tensors.append(_tensor(name, "FP32", np.array([[value]], dtype=np.float32)))
    if max_detections is not None:
        tensors.append(_tensor(contract.MAX_DETECTIONS, "INT32", _int32(max_detections)))
    if remove_combined is not None:
        tensors.append(_tensor(contract.REMOVE_COMBINED, "BOOL", np.array([[remove_combined]], dtype=np.bool_)))
    return tensors


def read_detections(result: InferResult, prompt: Prompt, image_hw: tuple[int, int]) -> Detections:
    """Return what the server found.

    Raises:
        ServerError: the answer is not what the contract says.
    """
    boxes = _output(result, contract.BOXES)
    scores = _output(result, contract.SCORES)
    labels = _output(result, contract.LABELS)
    label_index = _output(result, contract.LABEL_INDEX)
    count = scores.size
    if boxes.shape != (1, count, 4) or any(array.shape != (1, count) for array in (scores, labels, label_index)):
        shapes = [list(array.shape) for array in (boxes, scores, labels, label_index)]
        raise ServerError(
            f"BOXES, SCORES, LABELS, LABEL_INDEX have the shapes {shapes}, not [1,n,4] and [1,n]",
            fix="build the model repository again",
        )
    texts = tuple(label.decode("utf-8") for label in labels[0])
    if prompt.single_label:
        # Sent as a caption, whose boxes can only be this label's: see gdino_client.prompt.
        texts = prompt.labels * count
        label_index = np.zeros_like(label_index)
    return Detections(
        boxes_xyxy=boxes[0],
        scores=scores[0],
        labels=texts,
        label_index=label_index[0],
        image_hw=image_hw,
        prompt=prompt.labels,
    )


def _output(result: InferResult, name: str) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] | None = result.as_numpy(name)
    if array is None:
        raise ServerError(f"the answer has no tensor {name}", fix="build the model repository again")
    return array


def bytes_tensor(name: str, elements: Sequence[bytes]) -> InferInput:
    """Return a tensor BYTES [1,n]."""
    array = np.empty((1, len(elements)), dtype=np.object_)  # filled, not np.array(): that would look into bytes
    array[0, :] = elements
    return _tensor(name, "BYTES", array)


def _tensor(name: str, datatype: str, array: npt.NDArray[Any]) -> InferInput:
    tensor = InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def _int32(value: int) -> npt.NDArray[np.int32]:
    if not -(2**31) <= value < 2**31:
        raise ThresholdError(f"max_detections is {value}", fix="give 1 or more, less than 2147483648")
    return np.array([[value]], dtype=np.int32)
