"""Ask graphs of a lower precision that are emulated on the CPU, with the server's own pre- and postprocessing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from gdino_build.accuracy.answers import Found
from gdino_build.accuracy.asking import Ask
from gdino_build.accuracy.dataset import CocoDataset
from gdino_build.accuracy.record import graphs_sha256
from gdino_build.accuracy.through_server import BOX_THRESHOLD, MAX_DETECTIONS, asked_header
from gdino_build.export import DETECTOR_INPUTS, TEXT_ENCODER_INPUTS
from gdino_build.parity import Arrays
from gdino_build.precision.emulation import emulate_in_fp32
from gdino_core import contract
from gdino_core.detections import DetectionOptions, postprocess
from gdino_core.image import preprocess_image
from gdino_core.prompt import encode_prompt
from gdino_core.settings import PreprocessSettings

_OPTIONS = DetectionOptions(box_threshold=BOX_THRESHOLD, max_detections=MAX_DETECTIONS)
THROUGH = "emulation in ONNX Runtime: on x86 CPUs FP16 graphs run in FP32"


def emulating(graphs: Path, labels: Sequence[str], settings: PreprocessSettings) -> Ask:
    """Load both graphs for emulation (see precision.emulation).

    Args:
        graphs: folder of the ONNX files of FP16 or BF16.
        labels: to ask for in every picture.
        settings: of the preprocessing.
    """
    detector = _session(graphs / f"{contract.MODEL_DETECTOR}.onnx")
    prompt = encode_prompt(tuple(labels), settings.text_buckets)
    text: Arrays = {
        contract.INPUT_IDS: prompt.input_ids[None],
        contract.POSITION_IDS: prompt.position_ids[None],
        contract.PHRASE_IDS: prompt.phrase_ids[None],
    }
    text_encoder = _session(graphs / f"{contract.MODEL_TEXT_ENCODER}.onnx")
    [features] = text_encoder.run([contract.TEXT_FEATURES], {name: text[name] for name in TEXT_ENCODER_INPUTS})
    single = len(labels) == 1  # is a caption to the contract, see gdino_client.prompt

    def ask(data: bytes) -> Found:
        image = preprocess_image(data, settings)
        inputs: Arrays = {
            **text,
            contract.TEXT_FEATURES: features,
            contract.PIXELS: image.pixels[None],
            contract.VALID_HW: image.valid_hw[None],
        }
        logits, boxes = detector.run(
            [contract.LOGITS, contract.BOXES_CXCYWH], {name: inputs[name] for name in DETECTOR_INPUTS}
        )
        height, width = (int(side) for side in image.image_hw)
        found = postprocess(logits[0], boxes[0], prompt, (height, width), _OPTIONS)
        return Found(
            boxes_xyxy=found.boxes_xyxy,
            scores=found.scores,
            label_index=np.zeros_like(found.label_index) if single else found.label_index,
            image_hw=(height, width),
        )

    return ask


def emulated_header(graphs: Path, dataset: CocoDataset, settings: PreprocessSettings) -> dict[str, object]:
    """All that answers depend on: both graphs, the preprocessing, the data set, and settings."""
    return {
        "emulated": graphs_sha256(graphs),
        "preprocess": settings.to_parameters(),
        "versions": {"onnxruntime": onnxruntime.__version__, "numpy": np.__version__},
        **asked_header(dataset),
    }


def _session(path: Path) -> onnxruntime.InferenceSession:
    model = emulate_in_fp32(onnx.load(path))
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
