"""Find what a lower precision harms: the error of the answers when one group of nodes alone is lowered."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from gdino_build.parity import Arrays, ForcedAnswers, Ints
from gdino_build.precision import GRAPHS
from gdino_build.precision.emulation import emulate_in_fp32
from gdino_build.precision.groups import group_of, list_groups
from gdino_build.precision.lowering import lower_precision
from gdino_build.stages import OnnxStage
from gdino_core import contract


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What lowering one group does to the answers; proposals are those of FP32.

    Attributes:
        graph: text_encoder or detector.
        group: path of its modules without their numbers, and what its nodes do.
        nodes: how many it has.
        box_mean: mean difference of boxes over all queries, as a fraction of the picture.
        box_max: the largest.
        logit_max: largest difference of the logits of real tokens.
        moved_proposals: how many proposals would be others, or stand elsewhere.
    """

    graph: str
    group: str
    nodes: int
    box_mean: float
    box_max: float
    logit_max: float
    moved_proposals: int


@dataclass(frozen=True, kw_only=True)
class _Question:
    """One case, with the proposals and answers of FP32."""

    inputs: Arrays
    proposals: Ints
    expected: ForcedAnswers


def count_groups(folder: Path) -> int:
    """How many groups `scan` goes through."""
    return sum(len(list_groups(onnx.load(folder / f"{name}.onnx"))) for name in GRAPHS)


def scan(folder: Path, precision: str, cases: Sequence[Arrays]) -> Iterator[Sensitivity | None]:
    """Lower one group after the other, and compare with FP32.

    Args:
        folder: of both cleaned graphs.
        precision: to lower to; one of LOW_PRECISIONS.
        cases: inputs of both graphs.

    Yields:
        One group after the other; None for a group in which nothing can be lowered.
    """
    questions = _ask_fp32(OnnxStage(folder), cases)
    for name in GRAPHS:
        model = onnx.load(folder / f"{name}.onnx")
        for group, nodes in list_groups(model).items():
            lowered = _lower_group(model, precision, group)
            if lowered is None:
                yield None
                continue
            with tempfile.TemporaryDirectory() as temporary:
                onnx.save(emulate_in_fp32(lowered), Path(temporary) / f"{name}.onnx")
                for other in GRAPHS:
                    if other != name:
                        (Path(temporary) / f"{other}.onnx").symlink_to((folder / f"{other}.onnx").resolve())
                stage = OnnxStage(Path(temporary))
                found = [stage.forced(one.inputs, one.proposals) for one in questions]
            yield _sensitivity(name, group, nodes, questions, found)


def _ask_fp32(reference: OnnxStage, cases: Sequence[Arrays]) -> list[_Question]:
    questions = []
    for case in cases:
        proposals = reference(case).proposals
        questions.append(_Question(inputs=case, proposals=proposals, expected=reference.forced(case, proposals)))
    return questions


def _lower_group(model: onnx.ModelProto, precision: str, group: str) -> onnx.ModelProto | None:
    graph = gs.import_onnx(model)
    before = len(graph.nodes)
    lower_precision(graph, precision, lambda node: group_of(node) == group)
    if len(graph.nodes) == before:  # no cast: nothing has changed its type
        return None
    lowered: onnx.ModelProto = gs.export_onnx(graph)
    return lowered


def _sensitivity(
    graph: str, group: str, nodes: int, questions: Sequence[_Question], found: Sequence[ForcedAnswers]
) -> Sensitivity:
    boxes, logits, moved = [], [], 0
    for question, answers in zip(questions, found, strict=True):
        boxes.append(np.abs(answers.boxes - question.expected.boxes).ravel())
        is_token = question.inputs[contract.PHRASE_IDS][:, None] >= 0
        logits.append(np.where(is_token, np.abs(answers.logits - question.expected.logits), 0).max())
        best = np.argsort(-answers.scores, axis=1, kind="stable")[:, : question.proposals.shape[1]]
        moved += int((best != question.proposals).sum())
    all_boxes = np.concatenate(boxes)
    return Sensitivity(
        graph=graph,
        group=group,
        nodes=nodes,
        box_mean=float(all_boxes.mean()),
        box_max=float(all_boxes.max()),
        logit_max=float(max(logits)),
        moved_proposals=moved,
    )
