"""The last stage: what a running server answers, tensor by tensor and as detections."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import tritonclient.grpc as triton
from PIL import Image
from tritonclient.utils import np_to_triton_dtype

from gdino_build.export import DETECTOR_INPUTS, DETECTOR_OUTPUTS, TEXT_ENCODER_INPUTS, TEXT_ENCODER_OUTPUTS
from gdino_build.parity import NO_DIFFERENCE, Answers, Array, Arrays, Difference, Floats, ForcedStage, Stage
from gdino_build.pictures import Picture, draw_picture
from gdino_build.verify_report import TOLERANCE
from gdino_client import Client, Detections
from gdino_core import contract
from gdino_core.detections import DetectionArrays, DetectionOptions, postprocess
from gdino_core.image import preprocess_image
from gdino_core.prompt import EncodedPrompt, encode_prompt
from gdino_core.settings import PreprocessSettings

_TIMEOUT_S = 300.0  # full-size models on a small machine take a while
DETECTION_OPTIONS = DetectionOptions(box_threshold=0.0, max_detections=50)
SPARE_DETECTIONS = 10
EXPECTED_OPTIONS = replace(DETECTION_OPTIONS, max_detections=DETECTION_OPTIONS.max_detections + SPARE_DETECTIONS)
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


@dataclass(frozen=True, kw_only=True)
class DetectionCase:
    """What a client asks, and what it should be told.

    Attributes:
        picture: uint8 [H, W, 3], RGB.
        texts: one caption, or labels.
        expected: the detections at a box threshold of 0, of EXPECTED_OPTIONS.
    """

    picture: Picture
    texts: tuple[str, ...]
    expected: DetectionArrays


def detection_cases(settings: PreprocessSettings, engine: Stage, reference: ForcedStage) -> Iterator[DetectionCase]:
    """Pictures and prompts, with the reference's detections.

    Args:
        settings: of the server's preprocessing.
        engine: tells the proposals that the server chooses.
        reference: answers from these proposals.
    """
    for seed, ((height, width), texts) in enumerate(_REQUESTS):
        picture = draw_picture(seed, height, width)
        inputs, prompt = preprocessed(picture, texts, settings)
        answers = reference(inputs, engine(inputs).proposals)
        expected = postprocess(answers.logits[0], answers.boxes[0], prompt, (height, width), EXPECTED_OPTIONS)
        yield DetectionCase(picture=picture, texts=texts, expected=expected)


def preprocessed(
    picture: Picture, texts: tuple[str, ...], settings: PreprocessSettings
) -> tuple[Arrays, EncodedPrompt]:
    """Inputs of both graphs as the server's preprocessing makes them, a batch of one, and the encoded prompt."""
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, format="PNG", compress_level=1)
    image = preprocess_image(encoded.getvalue(), settings)
    prompt = encode_prompt(texts, settings.text_buckets)
    inputs: Arrays = {
        contract.PIXELS: image.pixels[None],
        contract.VALID_HW: image.valid_hw[None],
        contract.INPUT_IDS: prompt.input_ids[None],
        contract.POSITION_IDS: prompt.position_ids[None],
        contract.PHRASE_IDS: prompt.phrase_ids[None],
    }
    return inputs, prompt


def compare_detections(grpc_url: str, cases: Iterable[DetectionCase]) -> tuple[int, Difference]:
    """Send pictures and prompts as a client does, and compare the detections.

    Returns:
        Number of cases; the largest difference of scores, as logits, and of boxes, as fractions of the picture. A
        detection without a counterpart is an unmatched query.
    """
    count, worst = 0, NO_DIFFERENCE
    with Client(grpc_url, timeout_s=_TIMEOUT_S) as client:
        for case in cases:
            found = client.detect(
                case.picture,
                case.texts[0] if len(case.texts) == 1 else case.texts,
                box_threshold=DETECTION_OPTIONS.box_threshold,
                max_detections=DETECTION_OPTIONS.max_detections,
            )
            count += 1
            worst = worst.worst(detections_difference(found, case.expected))
    return count, worst


def detections_difference(found: Detections, expected: DetectionArrays) -> Difference:
    """Compare each detection with its counterpart, which has its label and, within the tolerance, its score.

    Detections whose scores tie may come in another order, and the last of them may fall behind the limit: of several
    counterparts the nearest in score and box is taken, and `expected` has spare ones.

    Args:
        found: what the server answered.
        expected: the same by falling score, and SPARE_DETECTIONS more where there are so many.
    """
    height, width = found.image_hw
    box_scale = np.array([width, height, width, height], np.float32)
    found_logits, expected_logits = _logit(found.scores), _logit(expected.scores)
    labels = np.array(expected.labels, object)
    free = np.ones(len(labels), bool)
    unmatched, logits, boxes = 0, [0.0], [0.0]
    for label, logit, box in zip(found.labels, found_logits, found.boxes_xyxy, strict=True):
        logits_apart = np.abs(expected_logits - logit)
        (counterparts,) = np.nonzero(free & (labels == label) & (logits_apart <= TOLERANCE.logit))
        if not len(counterparts):
            unmatched += 1
            continue
        boxes_apart = (np.abs(expected.boxes_xyxy - box) / box_scale).max(axis=1)
        apart = np.maximum(logits_apart / TOLERANCE.logit, boxes_apart / TOLERANCE.box)
        nearest = counterparts[apart[counterparts].argmin()]
        free[nearest] = False
        logits.append(float(logits_apart[nearest]))
        boxes.append(float(boxes_apart[nearest]))
    is_full = len(found) == DETECTION_OPTIONS.max_detections
    lowest = found_logits[-1] + TOLERANCE.logit if is_full else -np.inf
    missing = int((free & (expected_logits > lowest)).sum())
    return Difference(max_abs_logit=max(logits), max_abs_box=max(boxes), unmatched_queries=unmatched + missing)


def _logit(scores: Floats) -> Array:
    clipped = np.clip(scores.astype(np.float64), _EPS, 1 - _EPS)
    return np.log(clipped / (1 - clipped))
