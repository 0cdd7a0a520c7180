"""Find the deformable attentions of a cleaned graph, and write each as one node.

The exporter spells one out as a GridSample a level, with some forty nodes around them. The samples of all queries that
pass between those nodes are the largest tensors of the model. An engine that has one operator for the whole keeps them
in its caches; `openvino_deformable` builds it for OpenVINO.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.exporters.onnx_exporter import dtype_to_onnx

from gdino_build.clean import infer_shapes
from gdino_core.errors import ExportError

DOMAIN = "groundingdino"
OP = "DeformableAttention"


@dataclass(frozen=True, kw_only=True)
class DeformableAttention:
    """The tensors at the edge of one deformable attention; B pictures, S image tokens, Q queries, L levels.

    Where a query samples, in cells of a level, is reference * cells + offsets - 0.5 for reference points (encoder), and
    (reference + offsets * extent / (2 * points)) * cells - 0.5 for reference boxes (decoder).

    Attributes:
        value: [B,S,heads,head_dim], zero in padding.
        weights: [B,Q,heads,L*points], of the samples, after their softmax.
        offsets: [B,Q,2*heads*L*points], x of all samples before y.
        reference: [B,Q,2,1,L,1], (x, y) as fractions of each level's frame.
        extent: [B,Q,2,1,L,1], width and height of reference boxes; None for points.
        cells: [2,1,L,1], columns and rows of each level; None for boxes, which do not need them here.
        locations: [B,Q,2,heads,L,points], where to sample, as fractions of each level's frame.
        output: [B,Q,heads*head_dim].
    """

    value: gs.Tensor
    weights: gs.Tensor
    offsets: gs.Tensor
    reference: gs.Tensor
    extent: gs.Tensor | None
    cells: gs.Tensor | None
    locations: gs.Tensor
    output: gs.Tensor
    heads: int
    head_dim: int
    levels: int
    points: int


def find_deformable_attentions(graph: gs.Graph) -> list[DeformableAttention]:
    """Find all of them, in the order of the graph; its tensors' types and shapes are noted on the way.

    Raises:
        ExportError: a GridSample is not part of what `export` writes.
    """
    infer_shapes(graph)
    try:
        return list(_find(graph))
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise _not_as_exported(error) from error


def fuse_deformable_attentions(graph: gs.Graph) -> int:
    """Write each as one node of OP in DOMAIN; the graph is changed in place.

    Its inputs are value, weights, offsets, reference, cells and, for boxes, extent; its attributes heads, head_dim,
    levels and points.

    Returns:
        How many there were.

    Raises:
        ExportError: as in `find_deformable_attentions`, or none of them has reference points.
    """
    found = find_deformable_attentions(graph)
    cells = next((one.cells for one in found if one.cells is not None), None)
    if found and cells is None:
        raise _not_as_exported("without an encoder, nothing tells the sizes of the levels")
    for index, one in enumerate(found):
        inputs = [one.value, one.weights, one.offsets, one.reference, cells, one.extent]
        sizes = {"heads": one.heads, "head_dim": one.head_dim, "levels": one.levels, "points": one.points}
        name = f"deformable_attention_{index}"
        gathered = gs.Variable(f"{name}_output", np.dtype(np.float32))  # whatever the types around it
        one.output.inputs.clear()
        graph.nodes += [
            gs.Node(OP, name, sizes, [tensor for tensor in inputs if tensor is not None], [gathered], domain=DOMAIN),
            gs.Node("Cast", f"{name}_cast", {"to": dtype_to_onnx(one.output.dtype)}, [gathered], [one.output]),
        ]
    graph.cleanup().toposort()
    return len(found)


def _not_as_exported(reason: object) -> ExportError:
    return ExportError(
        f"a deformable attention is not as the exporter writes it: {reason}", fix="export and clean again"
    )


def _find(graph: gs.Graph) -> Iterator[DeformableAttention]:
    samplers = [node for node in graph.nodes if node.op == "GridSample"]
    seen: set[int] = set()
    for sampler in samplers:
        if sampler.attrs.get("align_corners", 0) or sampler.attrs.get("padding_mode", "zeros") != "zeros":
            raise ValueError(f"{sampler.name} samples in another way: {sampler.attrs}")
        locations = _back(sampler.inputs[1], "Gather", "Reshape", "Transpose", "Sub", "Mul")
        if id(locations) in seen:  # another level of the same attention
            continue
        seen.add(id(locations))
        value = _back(sampler.inputs[0], "Reshape", "Slice", "Transpose")
        weighted = _weighted(sampler)
        (level_weights,) = (tensor for tensor in weighted.inputs if _source(tensor).op == "Slice")
        levels, points = locations.shape[4:]
        yield DeformableAttention(
            value=value,
            weights=_back(level_weights, "Slice", "Reshape", "Transpose"),
            **_sampling(locations),
            locations=locations,
            output=_output(weighted),
            heads=value.shape[2],
            head_dim=value.shape[3],
            levels=levels,
            points=points,
        )


def _sampling(locations: gs.Tensor) -> dict[str, gs.Tensor | None]:
    """Take apart where to sample: reference + offsets / cells, or reference + offsets / points * extent * 0.5."""
    added = _source(locations)
    (moved,) = (tensor for tensor in added.inputs if _source(tensor).op in ("Div", "Mul"))
    (reference,) = (tensor for tensor in added.inputs if tensor is not moved)
    if _source(moved).op == "Div":
        offsets, cells = _source(moved).inputs
        return {"offsets": _back(offsets, "Reshape"), "reference": reference, "extent": None, "cells": cells}
    scaled = _source(_back(moved, "Mul"))
    (divided,) = (tensor for tensor in scaled.inputs if _source(tensor).op == "Div")
    (extent,) = (tensor for tensor in scaled.inputs if tensor is not divided)
    return {"offsets": _back(divided, "Div", "Reshape"), "reference": reference, "extent": extent, "cells": None}


def _output(weighted: gs.Node) -> gs.Tensor:
    """From the weighted samples of one level to the sum of all, [B,Q,C]."""
    tensor = weighted.outputs[0]
    for _ in range(64):  # more than levels and casts on the way
        (node,) = tensor.outputs
        tensor = node.outputs[0]
        if node.op == "Transpose":
            return tensor
        if node.op not in ("ReduceSum", "Add", "Reshape", "Cast"):
            raise ValueError(f"{node.op} {node.name} follows the samples")
    raise ValueError(f"the samples after {weighted.name} are never summed")


def _weighted(sampler: gs.Node) -> gs.Node:
    """The node that multiplies the samples with their weights."""
    (node,) = sampler.outputs[0].outputs
    if node.op == "Cast":
        (node,) = node.outputs[0].outputs
    if node.op != "Mul":
        raise ValueError(f"{node.op} {node.name} follows the samples")
    return node


def _back(tensor: gs.Tensor, *operators: str) -> gs.Tensor:
    """The data that a chain of operators, named from its last to its first, starts from; casts do not count."""
    for op in operators:
        node = _source(tensor)
        if node.op != op:
            raise ValueError(f"{node.op} {node.name} stands where {op} should")
        tensor = next(one for one in node.inputs if not _is_scalar(one))
    return tensor


def _source(tensor: gs.Tensor) -> gs.Node:
    """The node that computes a tensor, before casts."""
    node = tensor.inputs[0]
    while node.op == "Cast":
        node = node.inputs[0].inputs[0]
    return node


def _is_scalar(tensor: gs.Tensor) -> bool:
    return isinstance(tensor, gs.Constant) and tensor.values.ndim == 0 and tensor.values.dtype.kind != "i"
