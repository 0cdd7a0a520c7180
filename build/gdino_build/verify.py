"""Prove, stage by stage, that what is served is what the checkpoint computes.

Each stage is compared with the one before it: torch with the original's goldens, ONNX with torch, cleaned with raw,
engine with cleaned, and the server's answers with torch.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gdino_build.golden import Answer, Case, Golden, load_golden, weights_sha256
from gdino_build.model import GroundingDino
from gdino_build.parity import (
    NO_DIFFERENCE,
    Answers,
    Arrays,
    Difference,
    ForcedStage,
    Stage,
    Tolerance,
    compare,
    difference,
)
from gdino_build.pictures import draw_picture
from gdino_build.profile import Profile
from gdino_build.serve import running_server
from gdino_build.served import ServedStage, compare_detections
from gdino_build.server_ports import ServerPorts
from gdino_build.stages import OnnxStage, OpenVinoStage, TorchStage
from gdino_core import contract
from gdino_core.openvino_engine import OpenVinoSettings
from gdino_core.prompt import encode_prompt

# FP32 sums in another order: what remains when the TopK ties are taken out (see parity).
TOLERANCE = Tolerance(logit=1e-4, box=1e-5)

_CAPTIONS = (
    "red circle . blue star . green square .",
    "cat . remote control .",
    "a person riding a bicycle . dog",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of verify.json."""

    stage: str
    against: str
    cases: int
    difference: Difference
    tolerance: Tolerance

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.cases > 0 and self.difference.within(self.tolerance)

    def to_dict(self) -> dict[str, object]:
        """The row as verify.json has it."""
        return {
            "stage": self.stage,
            "against": self.against,
            "cases": self.cases,
            "max_abs_logit": _json_number(self.difference.max_abs_logit),
            "max_abs_box": _json_number(self.difference.max_abs_box),
            "unmatched_queries": self.difference.unmatched_queries,
            "tolerance": {"logit": self.tolerance.logit, "box": self.tolerance.box},
            "passed": self.passed,
        }


def _json_number(value: float) -> float | None:
    """The value; null for NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None


def verify_profile(
    profile: Profile, model: GroundingDino, folder: Path, goldens: Path, *, golden_expected: bool
) -> list[Row]:
    """Compare all stages of a built profile; starts its server for the last.

    Args:
        profile: what was built.
        model: the weights that it was built from.
        folder: out/<profile>.
        goldens: folder of the original's answers.
        golden_expected: whether it is a failure that none of them was made from these weights; a user's own
            checkpoint has none, and torch is then not compared with the original.
    """
    cases = picture_cases(profile.verify_sizes, profile.preprocess.text_buckets)
    torch_stage = TorchStage(model)
    rows = []
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    if golden := find_golden(goldens, weights_sha256(weights.items())):
        rows.append(compare_with_golden(golden, torch_stage.forced))
    else:
        print(f"no answers of the original for these weights in {goldens} (make goldens makes ours)")
        if golden_expected:
            rows.append(Row(stage="torch", against="original", cases=0, difference=NO_DIFFERENCE, tolerance=TOLERANCE))
    # Full-size stages hold gigabytes: each is opened for its row and closed after it.
    raw, cleaned = folder / "onnx" / "raw", folder / "onnx"
    rows.append(compare_stages("onnx", OnnxStage(raw), "torch", torch_stage.forced, cases))
    rows.append(compare_stages("cleaned", OnnxStage(cleaned), "onnx", OnnxStage(raw).forced, cases))
    engine = OpenVinoStage(folder / "engine", OpenVinoSettings(threads=profile.threads))
    rows.append(compare_stages("engine", engine, "cleaned", OnnxStage(cleaned).forced, cases))
    ports = ServerPorts.given_or_unused(os.environ)
    with running_server(folder / "repository", ports=ports, log_file=folder / "verify-server.log") as server:
        served = ServedStage(server.grpc_url, engine)
        rows.append(compare_stages("served", served, "torch", torch_stage.forced, cases))
        count, worst = compare_detections(server.grpc_url, profile.preprocess, engine, torch_stage.forced)
    detections = Row(stage="detections", against="torch", cases=count, difference=worst, tolerance=TOLERANCE)
    return [*rows, detections]


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


def golden_inputs(case: Case, answer: Answer) -> Arrays:
    """What the original was given for a case, as a batch of one."""
    return {
        contract.PIXELS: np.ascontiguousarray(case.padded_picture().transpose(2, 0, 1))[None],
        contract.VALID_HW: np.array([case.valid_hw], np.int32),
        contract.INPUT_IDS: answer.input_ids[None],
        contract.POSITION_IDS: answer.position_ids[None],
        contract.PHRASE_IDS: answer.phrase_ids[None],
    }


def compare_with_golden(golden: Golden, reference: ForcedStage) -> Row:
    """Compare what the original answered, one picture at a time, with the module given the original's proposals."""
    worst = NO_DIFFERENCE
    for case, answer in golden.cases:
        inputs = golden_inputs(case, answer)
        original = Answers(
            logits=answer.logits[None],
            boxes=answer.boxes[None],
            proposals=answer.proposals[None].astype(np.int64),
        )
        forced = reference(inputs, original.proposals)
        worst = worst.worst(difference(original, forced, inputs[contract.PHRASE_IDS]))
    return Row(stage="torch", against="original", cases=len(golden.cases), difference=worst, tolerance=TOLERANCE)


def compare_stages(name: str, candidate: Stage, against: str, reference: ForcedStage, cases: list[Arrays]) -> Row:
    """Compare two stages on all cases."""
    return Row(
        stage=name,
        against=against,
        cases=len(cases),
        difference=compare(candidate, reference, cases),
        tolerance=TOLERANCE,
    )


def find_golden(folder: Path, weights_sha256: str) -> Golden | None:
    """The golden file that the original made from just these weights, if there is one."""
    goldens = (load_golden(path) for path in sorted(folder.glob("*.npz")))
    return next((golden for golden in goldens if golden.weights_sha256 == weights_sha256), None)


def format_rows(rows: list[Row]) -> str:
    """The rows as a table to read."""
    lines = [f"{'stage':<12}{'against':<12}{'cases':>6}{'logit':>11}{'box':>11}{'unmatched':>11}  result"]
    lines += [
        f"{row.stage:<12}{row.against:<12}{row.cases:>6}{row.difference.max_abs_logit:>11.1e}"
        f"{row.difference.max_abs_box:>11.1e}{row.difference.unmatched_queries:>11}  "
        + ("passed" if row.passed else "FAILED")
        for row in rows
    ]
    return "\n".join(lines)


def write_rows(rows: list[Row], path: Path) -> None:
    """Write verify.json; it appears only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps([row.to_dict() for row in rows], indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
