"""Triton adapter: LOGITS and BOXES_CXCYWH to labelled boxes in pixels of the original picture."""

from typing import Any

import numpy as np

from gdino_core import contract
from gdino_core.chunks import encode_chunks
from gdino_core.detections import postprocess_chunks
from gdino_core.request import DetectionRequest
from gdino_core.settings import PreprocessSettings
from gdino_core.step_metrics import StepMetrics
from gdino_core.triton_adapter import Arrays, answer_each, input_arrays, read_parameters

_INPUTS = (contract.LOGITS, contract.BOXES_CXCYWH, contract.REQUEST)


class TritonPythonModel:
    """Turns the detector's answers into detections one by one."""

    def initialize(self, args: dict[str, str]) -> None:
        self._settings = PreprocessSettings.from_parameters(read_parameters(args["model_config"]))
        self._metrics = StepMetrics(args)

    def execute(self, requests: list[Any]) -> list[Any]:
        return answer_each(requests, self._answer, self._metrics.count_error)

    def _answer(self, request: Any) -> Arrays:
        inputs = input_arrays(request, _INPUTS)
        asked = DetectionRequest.from_bytes(inputs[contract.REQUEST][0, 0])
        detections = postprocess_chunks(
            inputs[contract.LOGITS],
            inputs[contract.BOXES_CXCYWH],
            encode_chunks(asked.texts, self._settings.text_buckets, self._settings.max_prompts),
            asked.image_hw,
            asked.options,
        )
        labels = [label.encode() for label in detections.labels]
        return {
            contract.BOXES: detections.boxes_xyxy[None],
            contract.SCORES: detections.scores[None],
            contract.LABELS: np.array(labels, dtype=np.object_)[None],
            contract.LABEL_INDEX: detections.label_index[None],
        }
