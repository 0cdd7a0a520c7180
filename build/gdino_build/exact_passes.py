"""Passes that shorten a graph of known sizes and change no bit of an answer: equal constants, casts, views, slices.

They read the shapes that `specialise` notes: numbers, or names such as "1276*batch" that are equal where sizes are.
"""

from collections import defaultdict
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
from onnx_graphsurgeon.exporters.onnx_exporter import dtype_to_onnx

from gdino_build.clean import redirect_consumers
from gdino_build.parity import Array

_BF16 = np.dtype(ml_dtypes.bfloat16)
_FOLDED_LIMIT_BYTES = 16 << 20  # as in `clean`
VIEWS = frozenset(("Reshape", "Squeeze", "Unsqueeze"))  # the same numbers in the same order: no kernel
_WIDENED = {(np.dtype(np.int32), np.dtype(np.int64)), (np.dtype(np.float16), np.dtype(np.float32))}

Sizes = list[int | str]


def fold_known_types(graph: gs.Graph) -> None:
    """Fold constants, with BF16 in mind: ONNX Runtime, which computes them, cannot hand its numbers over."""
    _fold_casts_to_bf16(graph)
    onnxruntime.set_default_logger_severity(3)  # the session that computes them warns of what it cannot optimise
    graph.cleanup().fold_constants(
        fold_shapes=False,
        size_threshold=_FOLDED_LIMIT_BYTES,
        error_ok=False,
        should_exclude_node=lambda node: any(map(_is_bf16, (*node.inputs, *node.outputs))),
    )
    _fold_casts_to_bf16(graph)


def _fold_casts_to_bf16(graph: gs.Graph) -> None:
    for node in graph.cleanup().nodes:
        if node.op == "Cast" and isinstance(node.inputs[0], gs.Constant) and _is_bf16(node.outputs[0]):
            [output] = node.outputs
            node.outputs.clear()
            output.to_constant(node.inputs[0].values.astype(_BF16))


def read_graph(path: Path) -> gs.Graph:
    """Load a graph; graphsurgeon alone would turn its BF16 constants into FP32."""
    model = onnx.load(path)
    graph = gs.import_onnx(model)
    tensors = graph.tensors()
    for constant in model.graph.initializer:
        if constant.data_type == onnx.TensorProto.BFLOAT16 and constant.name in tensors:
            tensors[constant.name].values = onnx.numpy_helper.to_array(constant)
    return graph


def _is_bf16(tensor: gs.Tensor) -> bool:
    return tensor.dtype is not None and dtype_to_onnx(tensor.dtype) == onnx.TensorProto.BFLOAT16


def share_constants(graph: gs.Graph) -> None:
    """Let equal constants be one, so that what is computed from them can be merged."""
    seen: dict[tuple[object, ...], gs.Constant] = {}
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Constant):
            values = tensor.values
            first = seen.setdefault((values.dtype.str, values.shape, values.tobytes()), tensor)
            if first is not tensor:
                redirect_consumers(tensor, first)


def drop_round_trips(graph: gs.Graph) -> None:
    """Remove casts to a wider type and back."""
    for node in graph.nodes:
        if node.op != "Cast" or _is_output(node, graph) or not node.inputs[0].inputs:
            continue
        wide = node.inputs[0]
        if wide.inputs[0].op == "Cast":
            source = wide.inputs[0].inputs[0]
            if (source.dtype, wide.dtype) in _WIDENED and node.outputs[0].dtype == source.dtype:
                redirect_consumers(node.outputs[0], source)


def merge_whole_numbers(graph: gs.Graph) -> None:
    """Add once where whole numbers are added and subtracted one after the other."""
    for node in graph.nodes:
        addend, inner = _whole_addend(node), _producer(node.inputs[0]) if node.inputs else None
        if addend is None or inner is None or (before := _whole_addend(inner)) is None:
            continue
        total = np.array(before + addend, dtype=before.dtype)
        node.op, node.inputs = "Add", [inner.inputs[0], gs.Constant(f"{node.name}_sum", total)]


def _whole_addend(node: gs.Node) -> Array | None:
    """The constant that an Add or Sub of whole numbers adds to its first input."""
    if node.op not in ("Add", "Sub") or isinstance(node.inputs[0], gs.Constant):
        return None
    constant = node.inputs[1]
    if not isinstance(constant, gs.Constant) or constant.values.dtype.kind != "i":
        return None
    values: Array = constant.values
    return values if node.op == "Add" else -values


def bypass_no_ops(graph: gs.Graph) -> None:
    """Remove expansions, transpositions and reshapes to the shape that a tensor already has."""
    for node in graph.nodes:
        if node.op not in (*VIEWS, "Expand", "Transpose") or _is_output(node, graph):
            continue
        stays = node.op != "Transpose" or node.attrs["perm"] == sorted(node.attrs["perm"])
        if stays and _shape(node.inputs[0]) == _shape(node.outputs[0]):
            redirect_consumers(node.outputs[0], node.inputs[0])


def merge_views(graph: gs.Graph) -> None:
    """Write a chain of views as one reshape; a transposition that moves only axes of size 1 is a view too."""
    for node in graph.toposort().nodes:
        if not _is_view(node):
            continue
        source = node.inputs[0]
        while (producer := _producer(source)) is not None and _is_view(producer):
            source = producer.inputs[0]
        target = reshape_target(_shape(source), _shape(node.outputs[0]))
        if target is not None and (source is not node.inputs[0] or node.op not in VIEWS):
            node.op, node.attrs = "Reshape", {}
            node.inputs = [source, gs.Constant(f"{node.name}_view", target)]


def reshape_target(before: Sizes, after: Sizes) -> Array | None:
    """Target of a reshape: 0 for an open size that stays in place, -1 for one that follows; None where two would."""
    target = [
        size if isinstance(size, int) else 0 if axis < len(before) and before[axis] == size else -1
        for axis, size in enumerate(after)
    ]
    return np.array(target, np.int64) if target.count(-1) <= 1 else None


def slices_to_splits(graph: gs.Graph) -> None:
    """Cut a tensor once where slices take it apart without gap or overlap."""
    taken: defaultdict[tuple[int, int], list[tuple[int, int, gs.Node]]] = defaultdict(list)
    for node in graph.nodes:
        if (cut := _cut(node)) is not None and not _is_output(node, graph):
            axis, start, stop = cut
            taken[id(node.inputs[0]), axis].append((start, stop, node))
    for (_, axis), cuts in taken.items():
        cuts.sort(key=lambda cut: cut[:2])
        starts, stops = [start for start, _, _ in cuts], [stop for _, stop, _ in cuts]
        source = cuts[0][2].inputs[0]
        if len(cuts) < 2 or [0, *stops[:-1]] != starts or stops[-1] != _shape(source)[axis]:
            continue
        name = f"{cuts[0][2].name}_split"
        sizes = gs.Constant(f"{name}_sizes", np.array([stop - start for start, stop, _ in cuts], np.int64))
        outputs = [node.outputs[0] for _, _, node in cuts]
        for _, _, node in cuts:
            node.outputs.clear()
        graph.nodes.append(gs.Node("Split", name, {"axis": axis}, [source, sizes], outputs))


def _cut(node: gs.Node) -> tuple[int, int, int] | None:
    """Axis, start and stop of a slice along one axis of known size with step 1."""
    if node.op != "Slice" or not all(isinstance(tensor, gs.Constant) for tensor in node.inputs[1:]):
        return None
    if len(node.inputs) != 5 or any(tensor.values.size != 1 for tensor in node.inputs[1:]):
        return None
    start, stop, axis, step = (int(tensor.values.item()) for tensor in node.inputs[1:])
    shape = _shape(node.inputs[0])
    size = shape[axis]
    if step != 1 or not isinstance(size, int):
        return None
    start, stop, _ = slice(start, stop).indices(size)
    return axis % len(shape), start, stop


def _is_view(node: gs.Node) -> bool:
    if node.op in VIEWS:
        return True
    if node.op == "Transpose":
        shape = _shape(node.inputs[0])
        moved = [axis for axis in node.attrs["perm"] if shape[axis] != 1]
        return moved == sorted(moved)
    if node.op == "Gather" and isinstance(node.inputs[1], gs.Constant) and node.inputs[1].values.ndim == 0:
        return bool(_shape(node.inputs[0])[node.attrs.get("axis", 0)] == 1)
    return False


def _producer(tensor: gs.Tensor) -> gs.Node | None:
    return tensor.inputs[0] if tensor.inputs else None


def _shape(tensor: gs.Tensor) -> Sizes:
    return list(tensor.shape)


def _is_output(node: gs.Node, graph: gs.Graph) -> bool:
    return any(tensor is output for tensor in node.outputs for output in graph.outputs)
