"""Triton adapter: LOGITS and BOXES_CXCYWH to labelled boxes in pixels of the original picture."""

from typing import Any

import numpy as np

from gdino_core import contract
from gdino_core.detections import DetectionOptions, postprocess
from gdino_core.prompt import encode_prompt, prompt_from_bytes
from gdino_core.settings import PreprocessSettings
from gdino_core.triton_adapter import Arrays, answer_each, input_arrays, read_parameters

_INPUTS = (contract.LOGITS, contract.BOXES_CXCYWH, contract.PROMPT, contract.IMAGE_HW)
_OPTIONS = {
    contract.BOX_THRESHOLD: "box_threshold",
    contract.TEXT_THRESHOLD: "text_threshold",
    contract.NMS_IOU: "nms_iou",
    contract.MAX_DETECTIONS: "max_detections",
    contract.REMOVE_COMBINED: "remove_combined",
}


class TritonPythonModel:
    """Turns the detector's answers into detections one by one."""

    def initialize(self, args: dict[str, str]) -> None:
        parameters = read_parameters(args["model_config"])
        self._text_buckets = PreprocessSettings.from_parameters(parameters).text_buckets

    def execute(self, requests: list[Any]) -> list[Any]:
        return answer_each(requests, self._answer)

    def _answer(self, request: Any) -> Arrays:
        inputs = input_arrays(request, _INPUTS)
        given = input_arrays(request, tuple(_OPTIONS))
        detections = postprocess(
            inputs[contract.LOGITS][0],
            inputs[contract.BOXES_CXCYWH][0],
            encode_prompt(prompt_from_bytes(inputs[contract.PROMPT][0]), self._text_buckets),
            tuple(inputs[contract.IMAGE_HW][0].tolist()),
            DetectionOptions(**{_OPTIONS[name]: value.item() for name, value in given.items()}),
        )
        labels = [label.encode() for label in detections.labels]
        return {
            contract.BOXES: detections.boxes_xyxy[None],
            contract.SCORES: detections.scores[None],
            contract.LABELS: np.array(labels, dtype=np.object_)[None],
            contract.LABEL_INDEX: detections.label_index[None],
        }
