"""The stages of the pipeline as callables with one signature, so that any two can be compared.

Each runs the text encoder and the detector of one stage. A candidate tells which proposals it chose; a reference
takes the proposals of a candidate instead of choosing its own (see `parity`).
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import torch
from polygraphy.backend.onnx import BytesFromOnnx
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.logger import G_LOGGER

from gdino_build.clean import redirect_consumers
from gdino_build.export import DETECTOR_INPUTS, TEXT_ENCODER_INPUTS
from gdino_build.model import GroundingDino
from gdino_build.model.grounding_dino import Encoded
from gdino_build.parity import PROPOSAL_SCORES, PROPOSALS, Answers, Array, Arrays, ForcedAnswers, Ints
from gdino_core import contract
from gdino_core.openvino_engine import OpenVinoSettings, openvino_core

G_LOGGER.module_severity = {"": G_LOGGER.ERROR}  # a line for each session that opens is no news

Named = dict[str, Array]


class TorchStage:
    """The inference module in PyTorch."""

    def __init__(self, model: GroundingDino) -> None:
        self._model = model

    @torch.no_grad()
    def __call__(self, inputs: Arrays) -> Answers:
        """Choose proposals and answer."""
        encoded, candidates, anchors = self._encode(inputs)
        proposals, boxes = self._model.transformer.propose(candidates, anchors, encoded.text, encoded.geometry)
        logits, boxes = self._model.decode(encoded, boxes)[-1]
        return Answers(logits=logits.numpy(), boxes=boxes.numpy(), proposals=proposals.numpy())

    @torch.no_grad()
    def forced(self, inputs: Arrays, proposals: Ints) -> ForcedAnswers:
        """Answer from given proposals."""
        encoded, candidates, anchors = self._encode(inputs)
        chosen = self._model.transformer.boxes_of(torch.from_numpy(proposals), candidates, anchors)
        logits, boxes = self._model.decode(encoded, chosen)[-1]
        scores = self._model.transformer.proposal_scores(candidates, encoded.text, encoded.geometry)
        return ForcedAnswers(logits=logits.numpy(), boxes=boxes.numpy(), scores=scores.numpy())

    def _encode(self, inputs: Arrays) -> tuple[Encoded, torch.Tensor, torch.Tensor]:
        tensors = {name: torch.tensor(value) for name, value in inputs.items()}
        text = (tensors[contract.POSITION_IDS], tensors[contract.PHRASE_IDS])
        features = self._model.encode_text(tensors[contract.INPUT_IDS], *text)
        encoded = self._model.encode(tensors[contract.PIXELS], tensors[contract.VALID_HW], features, *text)
        candidates, anchors = self._model.transformer.candidates(encoded.memory, encoded.geometry)
        return encoded, candidates, anchors


class OnnxStage:
    """Both graphs of a folder in ONNX Runtime."""

    def __init__(self, folder: Path) -> None:
        self._text = SessionFromOnnx(str(folder / f"{contract.MODEL_TEXT_ENCODER}.onnx"))()
        self._detector_path = folder / f"{contract.MODEL_DETECTOR}.onnx"

    # Full-size sessions hold gigabytes, so they open when they are first used.
    @cached_property
    def _candidate(self) -> Any:
        return SessionFromOnnx(BytesFromOnnx(with_proposals_as_output(onnx.load(self._detector_path))))()

    @cached_property
    def _forced(self) -> Any:
        return SessionFromOnnx(BytesFromOnnx(with_proposals_as_input(onnx.load(self._detector_path))))()

    def __call__(self, inputs: Arrays) -> Answers:
        """Choose proposals and answer."""
        return _answers(_run(self._candidate, self._detector_inputs(inputs)))

    def forced(self, inputs: Arrays, proposals: Ints) -> ForcedAnswers:
        """Answer from given proposals."""
        outputs = _run(self._forced, {**self._detector_inputs(inputs), PROPOSALS: proposals})
        return ForcedAnswers(
            logits=outputs[contract.LOGITS],
            boxes=outputs[contract.BOXES_CXCYWH],
            scores=outputs[PROPOSAL_SCORES],
        )

    def _detector_inputs(self, inputs: Arrays) -> Named:
        text = _run(self._text, {name: inputs[name] for name in TEXT_ENCODER_INPUTS})
        return {name: {**inputs, **text}[name] for name in DETECTOR_INPUTS}


class OpenVinoStage:
    """Both engines of a folder in OpenVINO, compiled as the server compiles them."""

    def __init__(self, folder: Path, settings: OpenVinoSettings) -> None:
        engine = folder / f"{contract.MODEL_DETECTOR}.xml"
        core = openvino_core(engine)
        properties = settings.to_properties()
        self._text = core.compile_model(folder / f"{contract.MODEL_TEXT_ENCODER}.xml", "CPU", properties)
        detector = core.read_model(engine)
        (topk,) = (op for op in detector.get_ops() if op.get_type_name() == "TopK")
        detector.add_outputs(topk.output(1))[0].tensor.set_names({PROPOSALS})
        self._detector = core.compile_model(detector, "CPU", properties)

    def __call__(self, inputs: Arrays) -> Answers:
        """Choose proposals and answer."""
        text = self._text({name: inputs[name] for name in TEXT_ENCODER_INPUTS})
        features = {contract.TEXT_FEATURES: text[contract.TEXT_FEATURES]}
        outputs = self._detector({name: {**inputs, **features}[name] for name in DETECTOR_INPUTS})
        return _answers({name: outputs[name] for name in (contract.LOGITS, contract.BOXES_CXCYWH, PROPOSALS)})


def with_proposals_as_output(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let a detector also tell which image tokens it proposes: PROPOSALS int64 [B,Q]."""
    graph = gs.import_onnx(model)
    proposals = _topk(graph).outputs[1]
    proposals.name, proposals.dtype, proposals.shape = PROPOSALS, np.dtype(np.int64), ["batch", "queries"]
    graph.outputs.append(proposals)
    changed: onnx.ModelProto = gs.export_onnx(graph)
    return changed


def with_proposals_as_input(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let a detector take PROPOSALS int64 [B,Q] instead of choosing, and tell PROPOSAL_SCORES float32 [B,S]."""
    graph = gs.import_onnx(model)
    topk = _topk(graph)
    given = gs.Variable(PROPOSALS, dtype=np.int64, shape=["batch", "queries"])
    redirect_consumers(topk.outputs[1], given)
    scores = topk.inputs[0]
    scores.name, scores.dtype, scores.shape = PROPOSAL_SCORES, np.dtype(np.float32), ["batch", "image_tokens"]
    graph.inputs.append(given)
    graph.outputs.append(scores)
    changed: onnx.ModelProto = gs.export_onnx(graph.cleanup().toposort())
    return changed


def _topk(graph: gs.Graph) -> gs.Node:
    (node,) = (node for node in graph.nodes if node.op == "TopK")
    return node


def _run(session: object, feed: Arrays) -> Named:
    with OnnxrtRunner(session) as runner:
        return dict(runner.infer(dict(feed)))


def _answers(outputs: Named) -> Answers:
    return Answers(
        logits=outputs[contract.LOGITS],
        boxes=outputs[contract.BOXES_CXCYWH],
        proposals=outputs[PROPOSALS].astype(np.int64),
    )
