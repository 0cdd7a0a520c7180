"""Pictures and prompts that INT8 is calibrated with, from a data set in COCO's format, and the ranges they give."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from gdino_build.accuracy.dataset import CocoDataset
from gdino_build.export import TEXT_ENCODER_INPUTS
from gdino_build.parity import Arrays
from gdino_build.precision.calibration import choose_thresholds
from gdino_core import contract
from gdino_core.errors import ConfigError, PromptError
from gdino_core.image import preprocess_image
from gdino_core.prompt import EncodedPrompt, encode_prompt
from gdino_core.settings import PreprocessSettings


def draw_cases(dataset: CocoDataset, settings: PreprocessSettings, pictures: int, seed: int) -> list[Arrays]:
    """Draw pictures, each with a prompt: every second one asks for all labels, the others for some, in any order.

    Args:
        dataset: to draw from.
        settings: of the server's preprocessing.
        pictures: how many; all of a smaller data set.
        seed: of the choice.

    Returns:
        Inputs of both graphs, a batch of one each.
    """
    rng = np.random.default_rng(seed)
    count = min(pictures, len(dataset.pictures))
    cases: list[Arrays] = []
    for place, index in enumerate(rng.choice(len(dataset.pictures), count, replace=False)):
        some = rng.permutation(dataset.labels)[: rng.integers(1, len(dataset.labels) + 1)]
        prompt = _encode(dataset.labels if place % 2 == 0 else [str(label) for label in some], settings.text_buckets)
        image = preprocess_image(dataset.pictures[index].path.read_bytes(), settings)
        cases.append(
            {
                contract.PIXELS: image.pixels[None],
                contract.VALID_HW: image.valid_hw[None],
                contract.INPUT_IDS: prompt.input_ids[None],
                contract.POSITION_IDS: prompt.position_ids[None],
                contract.PHRASE_IDS: prompt.phrase_ids[None],
            }
        )
    return cases


def find_thresholds(
    cleaned: Path, cases: Sequence[Arrays], method: str, progress: Callable[[Iterable[Arrays]], Iterable[Arrays]] = iter
) -> dict[str, dict[str, float]]:
    """Run both cleaned graphs on the cases and choose the range of each activation.

    Args:
        cleaned: folder of the graphs.
        cases: see `draw_cases`.
        method: one of calibration_settings.METHODS.
        progress: wraps the cases of each graph, such as tqdm.

    Returns:
        For each graph, thresholds by name of an activation; the same on every run on one machine.
    """
    text_encoder = onnx.load(cleaned / f"{contract.MODEL_TEXT_ENCODER}.onnx")
    detector = onnx.load(cleaned / f"{contract.MODEL_DETECTOR}.onnx")
    with_features = list(with_text_features(text_encoder, cases))
    return {
        contract.MODEL_TEXT_ENCODER: choose_thresholds(text_encoder, progress(cases), method),
        contract.MODEL_DETECTOR: choose_thresholds(detector, progress(with_features), method),
    }


def with_text_features(text_encoder: onnx.ModelProto, cases: Sequence[Arrays]) -> Iterator[Arrays]:
    """Add TEXT_FEATURES, as the text encoder gives them, to each case."""
    session = onnxruntime.InferenceSession(text_encoder.SerializeToString(), providers=["CPUExecutionProvider"])
    for case in cases:
        features = session.run([contract.TEXT_FEATURES], {name: case[name] for name in TEXT_ENCODER_INPUTS})[0]
        yield {**case, contract.TEXT_FEATURES: features}


def _encode(labels: Sequence[str], text_buckets: tuple[int, ...]) -> EncodedPrompt:
    """Encode as many of the labels as a prompt holds."""
    for count in range(len(labels), 0, -1):
        try:
            return encode_prompt(tuple(labels[:count]), text_buckets)
        except PromptError:
            continue
    raise ConfigError(f"the label {labels[0]!r} alone is longer than a prompt may be", fix="shorten it")
