"""Triton adapter: a picture and a prompt to the tensors that the text encoder and the detector read."""

from typing import Any

import numpy as np

from gdino_core import contract
from gdino_core.chunks import encode_chunks
from gdino_core.detections import DetectionOptions
from gdino_core.draining import check_accepting
from gdino_core.errors import ImageError
from gdino_core.image import PreparedImage, preprocess_image, preprocess_pixels
from gdino_core.prompt import load_tokenizer, prompt_from_bytes
from gdino_core.request import DetectionRequest
from gdino_core.settings import PreprocessSettings
from gdino_core.step_metrics import Metric, StepMetrics
from gdino_core.triton_adapter import Arrays, answer_each, input_arrays, read_parameters

_OPTIONS = {
    contract.BOX_THRESHOLD: "box_threshold",
    contract.TEXT_THRESHOLD: "text_threshold",
    contract.NMS_IOU: "nms_iou",
    contract.MAX_DETECTIONS: "max_detections",
    contract.REMOVE_COMBINED: "remove_combined",
}
_RUNNING = ("GAUGE", "gdino_preprocess_running", "Requests that are being preprocessed")


class TritonPythonModel:
    """Prepares pictures and prompts one by one."""

    def initialize(self, args: dict[str, str]) -> None:
        self._settings = PreprocessSettings.from_parameters(read_parameters(args["model_config"]))
        self._metrics = StepMetrics(args)
        load_tokenizer()  # else the first request waits for it
        self._running = Metric(*_RUNNING, args["model_name"])

    def execute(self, requests: list[Any]) -> list[Any]:
        self._running.add(len(requests))  # all instances share the number
        responses = answer_each(requests, self._answer, self._metrics.count_error)
        self._running.add(-len(requests))
        return responses

    def _answer(self, request: Any) -> Arrays:
        check_accepting()
        # What is wrong is told before the picture is decoded and the detector runs.
        given = input_arrays(request, tuple(_OPTIONS))
        options = DetectionOptions(**{_OPTIONS[name]: value.item() for name, value in given.items()})
        texts = prompt_from_bytes(input_arrays(request, (contract.PROMPT,))[contract.PROMPT][0])
        prompts = encode_chunks(texts, self._settings.text_buckets, self._settings.max_prompts)
        image = self._prepare(input_arrays(request, (contract.IMAGE, contract.IMAGE_RGB)))
        height, width = image.image_hw.tolist()
        content = DetectionRequest(texts=texts, image_hw=(height, width), options=options).to_bytes()
        rows = len(prompts)
        return {
            contract.PIXELS: np.broadcast_to(image.pixels, (rows, *image.pixels.shape)),
            contract.VALID_HW: np.broadcast_to(image.valid_hw, (rows, 2)),
            contract.REQUEST: np.array([[content], *[[b""]] * (rows - 1)], dtype=np.object_),
            contract.INPUT_IDS: np.stack([prompt.input_ids for prompt in prompts]),
            contract.POSITION_IDS: np.stack([prompt.position_ids for prompt in prompts]),
            contract.PHRASE_IDS: np.stack([prompt.phrase_ids for prompt in prompts]),
        }

    def _prepare(self, given: Arrays) -> PreparedImage:
        match given:
            case {contract.IMAGE: encoded, **rest} if not rest:
                return preprocess_image(encoded[0, 0], self._settings)
            case {contract.IMAGE_RGB: pixels, **rest} if not rest:
                return preprocess_pixels(pixels[0], self._settings)
        raise ImageError(
            "both IMAGE and IMAGE_RGB are given" if given else "neither IMAGE nor IMAGE_RGB is given",
            fix="send the file's bytes as IMAGE, or the pixels as IMAGE_RGB",
        )
