"""Clean an exported graph: named onnx-graphsurgeon passes, each for one fault that the exporter leaves behind.

No pass changes what the graph computes; `gdino-build verify` and the tests compare outputs before and after.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
from onnx_graphsurgeon.exporters.onnx_exporter import dtype_to_onnx

_FOLDED_LIMIT_BYTES = 16 << 20  # larger folded constants would cost more to load than to compute
_COMPARED_LIMIT_VALUES = 8  # scalars, axes and shapes are equal when their values are, larger constants never


def bypass_identities(graph: gs.Graph) -> None:
    """Connect consumers of Identity nodes to their source."""
    for node in graph.nodes:
        if node.op == "Identity" and not _is_graph_output(node, graph):
            redirect_consumers(node.outputs[0], node.inputs[0])


def fold_constants(graph: gs.Graph) -> None:
    """Compute everything that depends on no input, once and for all."""
    onnxruntime.set_default_logger_severity(3)  # the session that computes them warns of what it cannot optimise
    # Not the shapes: graphsurgeon would also drop casts around arithmetic on sizes, and truncate its constants.
    graph.fold_constants(fold_shapes=False, size_threshold=_FOLDED_LIMIT_BYTES, error_ok=False)


def infer_shapes(graph: gs.Graph) -> None:
    """Note the type and shape of every tensor, equal sizes under equal names, for the passes that follow."""
    model = onnx.shape_inference.infer_shapes(gs.export_onnx(graph), data_prop=True)
    inferred = gs.import_onnx(model).tensors()
    for name, tensor in graph.tensors().items():
        if isinstance(tensor, gs.Variable):
            tensor.dtype, tensor.shape = inferred[name].dtype, inferred[name].shape


def drop_no_op_casts(graph: gs.Graph) -> None:
    """Remove casts to the type that a tensor already has."""
    for node in graph.nodes:
        if node.op != "Cast" or _is_graph_output(node, graph):
            continue
        source = node.inputs[0]
        if source.dtype is not None and dtype_to_onnx(source.dtype) == node.attrs["to"]:
            redirect_consumers(node.outputs[0], source)


def fix_reshape_targets(graph: gs.Graph) -> None:
    """Write a reshape's target as a constant: 0 for a size that stays, -1 for one that follows from the rest."""
    for node in graph.nodes:
        if node.op != "Reshape" or isinstance(node.inputs[1], gs.Constant) or node.attrs.get("allowzero"):
            continue
        before, after = node.inputs[0].shape, node.outputs[0].shape
        if before is None or after is None or 0 in after:
            continue
        target = []
        for axis, size in enumerate(after):
            kept = isinstance(size, str) and size in before[axis : axis + 1]
            target.append(size if isinstance(size, int) else 0 if kept else -1)
        if target.count(-1) <= 1:
            node.inputs[1] = gs.Constant(f"{node.name}_target", np.array(target, np.int64))


def merge_duplicates(graph: gs.Graph) -> None:
    """Keep one of several nodes that compute the same from the same."""
    seen: dict[tuple[object, ...], gs.Node] = {}
    for node in graph.toposort().nodes:
        if _is_graph_output(node, graph) or any(isinstance(value, gs.Graph) for value in node.attrs.values()):
            continue
        first = seen.setdefault(_signature(node), node)
        if first is not node:
            for duplicate, original in zip(node.outputs, first.outputs, strict=True):
                redirect_consumers(duplicate, original)


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One step of cleaning: what it does, and the failure that it removes."""

    name: str
    reason: str
    apply: Callable[[gs.Graph], None]


PASSES = (
    Pass(
        name="bypass-identities",
        reason="the exporter shares equal weights through Identity nodes; folded, each would be stored twice",
        apply=bypass_identities,
    ),
    Pass(
        name="fold-constants",
        reason="position biases, sine tables and weight reshapes would be computed anew for every picture",
        apply=fold_constants,
    ),
    Pass(
        name="infer-shapes",
        reason="the exporter notes no types and shapes, and calls known sizes of the outputs unknown",
        apply=infer_shapes,
    ),
    Pass(
        name="drop-no-op-casts",
        reason="casts to the same type are kernels that copy",
        apply=drop_no_op_casts,
    ),
    Pass(
        name="fix-reshape-targets",
        reason="a chain of small kernels asks for sizes that the reshape knows from its input",
        apply=fix_reshape_targets,
    ),
    Pass(
        name="merge-duplicates",
        reason="every layer asks for the same sizes again; each question is a chain of small kernels",
        apply=merge_duplicates,
    ),
)


def clean_graph(graph: gs.Graph, passes: tuple[Pass, ...] = PASSES) -> gs.Graph:
    """Apply the passes in order, dropping what each leaves unused; the graph is changed in place and returned."""
    for step in passes:
        step.apply(graph)
        graph.cleanup().toposort()
    return graph


def clean_file(raw: Path, cleaned: Path, passes: tuple[Pass, ...] = PASSES) -> None:
    """Clean one ONNX file into another, which appears only when it is whole.

    Args:
        raw: the exported graph.
        cleaned: where the cleaned graph goes.
        passes: what to apply.
    """
    graph = clean_graph(gs.import_onnx(onnx.load(raw)), passes)
    forget_inferred(graph)
    save_graph(graph, cleaned)


def save_graph(graph: gs.Graph, path: Path) -> None:
    """Check a graph and write it; the file appears only when it is whole."""
    model = gs.export_onnx(graph)
    onnx.checker.check_model(model, full_check=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    onnx.save(model, temporary)
    os.replace(temporary, path)


def forget_inferred(graph: gs.Graph) -> None:
    """Drop the types and shapes of all tensors between inputs and outputs.

    Runtimes infer them themselves, and may refuse a graph whose names for sizes differ from theirs.
    """
    interface = {id(tensor) for tensor in (*graph.inputs, *graph.outputs)}
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Variable) and id(tensor) not in interface:
            tensor.dtype, tensor.shape = None, None


def _is_graph_output(node: gs.Node, graph: gs.Graph) -> bool:
    return any(tensor is output for tensor in node.outputs for output in graph.outputs)


def redirect_consumers(old: gs.Tensor, new: gs.Tensor) -> None:
    """Let all consumers of a tensor read another; its own node is left unused, for the cleanup after the pass."""
    for consumer in list(old.outputs):
        consumer.inputs = [new if tensor is old else tensor for tensor in consumer.inputs]


def _signature(node: gs.Node) -> tuple[object, ...]:
    """Equal for nodes with the same operator, attributes and inputs; small constants compare by value."""
    inputs = tuple(_identity(tensor) for tensor in node.inputs)
    attributes = tuple(sorted((name, _attribute(value)) for name, value in node.attrs.items()))
    return node.op, node.domain, len(node.outputs), attributes, inputs


def _identity(tensor: gs.Tensor) -> object:
    if isinstance(tensor, gs.Constant) and math.prod(tensor.shape) <= _COMPARED_LIMIT_VALUES:
        return tensor.values.dtype.str, tensor.values.shape, tensor.values.tobytes()
    return id(tensor)


def _attribute(value: object) -> str:
    if isinstance(value, gs.Constant):
        return f"{value.values.dtype}{value.values.shape}{value.values.tobytes()!r}"
    return repr(value)
