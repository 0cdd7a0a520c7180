"""The last stage: what a running server answers, tensor by tensor and as detections."""

import io

import numpy as np
import tritonclient.grpc as triton
from PIL import Image
from tritonclient.utils import np_to_triton_dtype

from gdino_build.export import DETECTOR_INPUTS, DETECTOR_OUTPUTS, TEXT_ENCODER_INPUTS, TEXT_ENCODER_OUTPUTS
from gdino_build.parity import NO_DIFFERENCE, Answers, Array, Arrays, Difference, Floats, ForcedStage, Stage
from gdino_build.pictures import Picture, draw_picture
from gdino_client import Client, Detections
from gdino_core import contract
from gdino_core.detections import DetectionArrays, DetectionOptions, postprocess
from gdino_core.image import preprocess_image
from gdino_core.prompt import encode_prompt
from gdino_core.settings import PreprocessSettings

_TIMEOUT_S = 300.0  # full-size models on a small machine take a while
_MAX_DETECTIONS = 50
_EPS = 1e-6

# A caption, and labels, at sizes that are resized and padded.
_REQUESTS: tuple[tuple[tuple[int, int], tuple[str, ...]], ...] = (
    ((480, 640), ("red circle . blue star .",)),
    ((853, 480), ("cat", "remote control", "person")),
)


class ServedStage:
    """Text encoder and detector of a running server, called one after the other.

    The contract's answers do not tell which proposals were chosen, so the same engine tells it from the same inputs.
    """

    def __init__(self, grpc_url: str, engine: Stage) -> None:
        self._client = triton.InferenceServerClient(grpc_url)
        self._engine = engine

    def __call__(self, inputs: Arrays) -> Answers:
        """Ask the server."""
        text = self._infer(contract.MODEL_TEXT_ENCODER, inputs, TEXT_ENCODER_INPUTS, TEXT_ENCODER_OUTPUTS)
        answer = self._infer(contract.MODEL_DETECTOR, {**inputs, **text}, DETECTOR_INPUTS, DETECTOR_OUTPUTS)
        return Answers(
            logits=answer[contract.LOGITS],
            boxes=answer[contract.BOXES_CXCYWH],
            proposals=self._engine(inputs).proposals,
        )

    def _infer(self, model: str, arrays: Arrays, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> dict[str, Array]:
        tensors = []
        for name in inputs:
            array = np.ascontiguousarray(arrays[name])
            tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        result = self._client.infer(model, tensors, client_timeout=_TIMEOUT_S)
        return {name: result.as_numpy(name) for name in outputs}


def compare_detections(
    grpc_url: str, settings: PreprocessSettings, engine: Stage, reference: ForcedStage
) -> tuple[int, Difference]:
    """Send pictures and prompts as a client does, and compare the detections with those of the reference.

    Args:
        grpc_url: of the server.
        settings: of its preprocessing.
        engine: tells the proposals that the server chose.
        reference: torch, given these proposals.

    Returns:
        Number of cases; the largest difference of scores, as logits, and of boxes, as fractions of the picture. A
        detection without a counterpart of the same label is an unmatched query.
    """
    worst = NO_DIFFERENCE
    with Client(grpc_url, timeout_s=_TIMEOUT_S) as client:
        for seed, ((height, width), texts) in enumerate(_REQUESTS):
            picture = draw_picture(seed, height, width)
            options = DetectionOptions(box_threshold=0.0, max_detections=_MAX_DETECTIONS)
            found = client.detect(
                picture,
                texts[0] if len(texts) == 1 else texts,
                box_threshold=0.0,
                max_detections=_MAX_DETECTIONS,
            )
            expected = _expected_detections(picture, texts, settings, options, engine, reference)
            worst = worst.worst(_detections_difference(found, expected, (height, width)))
    return len(_REQUESTS), worst


def _expected_detections(
    picture: Picture,
    texts: tuple[str, ...],
    settings: PreprocessSettings,
    options: DetectionOptions,
    engine: Stage,
    reference: ForcedStage,
) -> DetectionArrays:
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, format="PNG")
    image, prompt = (
        preprocess_image(encoded.getvalue(), settings),
        encode_prompt(texts, settings.text_buckets),
    )
    inputs: Arrays = {
        contract.PIXELS: image.pixels[None],
        contract.VALID_HW: image.valid_hw[None],
        contract.INPUT_IDS: prompt.input_ids[None],
        contract.POSITION_IDS: prompt.position_ids[None],
        contract.PHRASE_IDS: prompt.phrase_ids[None],
    }
    answers = reference(inputs, engine(inputs).proposals)
    return postprocess(answers.logits[0], answers.boxes[0], prompt, (picture.shape[0], picture.shape[1]), options)


def _detections_difference(found: Detections, expected: DetectionArrays, image_hw: tuple[int, int]) -> Difference:
    count = min(len(found), len(expected.labels))
    pairs = zip(found.labels, expected.labels, strict=False)
    unmatched = max(len(found), len(expected.labels)) - count + sum(one != other for one, other in pairs)
    if not count:
        return Difference(max_abs_logit=0.0, max_abs_box=0.0, unmatched_queries=unmatched)
    height, width = image_hw
    box_scale = np.array([width, height, width, height], np.float32)
    boxes = np.abs(found.boxes_xyxy[:count] - expected.boxes_xyxy[:count]) / box_scale
    scores = np.abs(_logit(found.scores[:count]) - _logit(expected.scores[:count]))
    return Difference(max_abs_logit=float(scores.max()), max_abs_box=float(boxes.max()), unmatched_queries=unmatched)


def _logit(scores: Floats) -> Array:
    clipped = np.clip(scores.astype(np.float64), _EPS, 1 - _EPS)
    return np.log(clipped / (1 - clipped))
