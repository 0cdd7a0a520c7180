"""Prove, stage by stage, that what is served is what the checkpoint computes.

Each stage is compared with the one before it: torch with the original's goldens, ONNX with torch, cleaned with raw,
engine with cleaned, and the server's answers with torch. The cleaned ONNX and the server's answers are also compared
with the original itself.

How far the answers of a lower precision may be from the cleaned graph's is judged by accuracy (`gdino-build accuracy`),
not by the largest difference of 900 queries: that row is told and does not fail. What is served must then be what the
engine computes.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gdino_build.against_original import (
    compare_forced,
    compare_free,
    find_golden,
    in_buckets,
    original_detection_cases,
)
from gdino_build.golden import weights_sha256
from gdino_build.model import GroundingDino
from gdino_build.parity import NO_DIFFERENCE, Arrays, Difference, Tolerance, as_reference, compare
from gdino_build.pictures import draw_picture
from gdino_build.profile import Profile
from gdino_build.serve import running_server
from gdino_build.served import ServedStage, compare_detections, detection_cases
from gdino_build.server_ports import ServerPorts
from gdino_build.stages import OnnxStage, OpenVinoStage, TorchStage
from gdino_build.verify_report import TOLERANCE, Row
from gdino_core import contract
from gdino_core.openvino_engine import OpenVinoSettings
from gdino_core.prompt import encode_prompt

_CAPTIONS = (
    "red circle . blue star . green square .",
    "cat . remote control .",
    "a person riding a bicycle . dog",
)


def verify_profile(
    profile: Profile, model: GroundingDino, folder: Path, goldens: Path, *, golden_expected: bool
) -> Iterator[Row]:
    """Compare all stages of a built profile, one after the other; starts its server for the last.

    Args:
        profile: what was built.
        model: the weights that it was built from.
        folder: out/<profile>.
        goldens: folder of the original's answers.
        golden_expected: whether it is a failure that none of them was made from these weights; a user's own
            checkpoint has none, and torch is then not compared with the original.
    """
    cases = picture_cases(profile.verify_sizes, profile.preprocess.text_buckets)
    module = TorchStage(model)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    golden = find_golden(goldens, weights_sha256(weights.items()))
    # Full-size stages hold gigabytes: each is opened for its rows and closed after them.
    raw, cleaned = folder / "onnx" / "raw", folder / "onnx"
    if golden:
        yield _row("torch", "original", len(golden.cases), compare_forced(golden, module.forced))
    else:
        print(f"no answers of the original for these weights in {goldens} (make goldens makes ours)")
        if golden_expected:
            yield _row("torch", "original", 0, NO_DIFFERENCE)
    yield _row("onnx", "torch", len(cases), compare(OnnxStage(raw), module.forced, cases))
    yield _row("cleaned", "onnx", len(cases), compare(OnnxStage(cleaned), OnnxStage(raw).forced, cases))
    if golden:
        difference = compare_forced(golden, OnnxStage(cleaned).forced)
        yield _row("cleaned", "original", len(golden.cases), difference)
    engine = OpenVinoStage(folder / "engine", OpenVinoSettings(threads=profile.threads))
    is_exact = profile.precision == "fp32"
    difference = compare(engine, OnnxStage(cleaned).forced, cases)
    yield _row("engine", "cleaned", len(cases), difference, TOLERANCE if is_exact else None)
    ports = ServerPorts.given_or_unused(os.environ)
    with running_server(folder / "repository", ports=ports, log_file=folder / "verify-server.log") as server:
        served = ServedStage(server.grpc_url, engine)
        if not is_exact:
            yield _row("served", "engine", len(cases), compare(served, as_reference(engine), cases))
            requests = detection_cases(profile.preprocess, engine, as_reference(engine))
            yield _row("detections", "engine", *compare_detections(server.grpc_url, requests))
            return
        yield _row("served", "torch", len(cases), compare(served, module.forced, cases))
        requests = detection_cases(profile.preprocess, engine, module.forced)
        yield _row("detections", "torch", *compare_detections(server.grpc_url, requests))
        if golden:
            framed = in_buckets(golden, profile.preprocess)
            yield _row("served", "original", len(framed.cases), compare_free(framed, served, module.forced))
            requests = original_detection_cases(golden, profile.preprocess, engine, module.forced)
            yield _row("detections", "original", *compare_detections(server.grpc_url, requests))


def _row(stage: str, against: str, cases: int, found: Difference, tolerance: Tolerance | None = TOLERANCE) -> Row:
    return Row(stage=stage, against=against, cases=cases, difference=found, tolerance=tolerance)


def picture_cases(sizes: tuple[tuple[int, int], ...], text_buckets: tuple[int, ...]) -> list[Arrays]:
    """Inputs of both graphs: a whole picture of each size, and two with other prompts and padding in one batch.

    Args:
        sizes: heights and widths, multiples of 32.
        text_buckets: numbers of tokens that prompts are padded to.
    """
    cases = [
        batch_inputs(hw, [(hw, caption)], text_buckets)
        for hw, caption in zip(sizes, _CAPTIONS * len(sizes), strict=False)
    ]
    height, width = sizes[0]
    mixed = [((height, width - width // 5), _CAPTIONS[0]), ((height - height // 4, width), _CAPTIONS[1])]
    return [*cases, batch_inputs((height, width), mixed, text_buckets)]


def batch_inputs(
    padded_hw: tuple[int, int], pictures: Sequence[tuple[tuple[int, int], str]], text_buckets: tuple[int, ...]
) -> Arrays:
    """Draw a batch.

    Args:
        padded_hw: height and width of the batch, multiples of 32.
        pictures: for each its height and width inside the padded ones, and its caption.
        text_buckets: numbers of tokens; all prompts are padded to the smallest that holds the longest.
    """
    pixels = np.zeros((len(pictures), 3, *padded_hw), np.uint8)
    for index, ((valid_h, valid_w), _) in enumerate(pictures):
        pixels[index, :, :valid_h, :valid_w] = draw_picture(index + 1, valid_h, valid_w).transpose(2, 0, 1)
    longest = max(len(encode_prompt((caption,), text_buckets).input_ids) for _, caption in pictures)
    prompts = [encode_prompt((caption,), (longest,)) for _, caption in pictures]
    return {
        contract.PIXELS: pixels,
        contract.VALID_HW: np.array([valid_hw for valid_hw, _ in pictures], np.int32),
        contract.INPUT_IDS: np.stack([prompt.input_ids for prompt in prompts]),
        contract.POSITION_IDS: np.stack([prompt.position_ids for prompt in prompts]),
        contract.PHRASE_IDS: np.stack([prompt.phrase_ids for prompt in prompts]),
    }
