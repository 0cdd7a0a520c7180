"""Specialise a cleaned graph for one picture size: what follows from it becomes constant, and shape arithmetic ends.

Batch and tokens may be fixed too; where they are not, no tensor is asked for them either. No pass changes an answer.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx.helper import tensor_dtype_to_np_dtype
from onnx_graphsurgeon.exporters.onnx_exporter import dtype_to_onnx

from gdino_build.clean import (
    Pass,
    clean_graph,
    fix_reshape_targets,
    forget_inferred,
    merge_duplicates,
    redirect_consumers,
    save_graph,
)
from gdino_build.exact_passes import (
    bypass_no_ops,
    drop_round_trips,
    fold_known_types,
    merge_views,
    merge_whole_numbers,
    read_graph,
    share_constants,
    slices_to_splits,
)
from gdino_build.gathers import moves_to_gathers
from gdino_build.parity import Array
from gdino_build.probing import Probe, name_size, probe_open_sizes, set_input_sizes
from gdino_core import contract

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def settle_sizes(graph: gs.Graph) -> None:
    """Note every tensor's type and shape, and make constants of what holds the same whatever the open sizes are."""
    probes = probe_open_sizes(graph)
    for name, tensor in graph.tensors().items():
        if isinstance(tensor, gs.Constant):
            continue
        if (value := _settled(name, probes)) is not None:
            redirect_consumers(tensor, gs.Constant(f"{name}_settled", value))
        elif name in probes[0].types:
            tensor.dtype = probes[0].types[name]
            tensor.shape = [
                name_size(probes, found) for found in zip(*(one.shapes[name] for one in probes), strict=True)
            ]


def _settled(name: str, probes: Sequence[Probe]) -> Array | None:
    first, *others = (one.values.get(name) for one in probes)
    if first is None or any(other is None or not np.array_equal(first, other) for other in others):
        return None
    return first


def spread_over_batch(graph: gs.Graph) -> None:
    """Add a zero for each picture where a constant is repeated for each: an addition asks for no size."""
    zeros: dict[tuple[int, int], gs.Tensor] = {}
    for node in list(graph.nodes):
        if node.op != "Expand" or isinstance(node.inputs[1], gs.Constant):
            continue
        source, output = node.inputs[0], node.outputs[0]
        if dtype_to_onnx(output.dtype) not in _FLOATS:
            continue
        if output.shape[0] != "batch" or list(source.shape)[-len(output.shape) + 1 :] != list(output.shape[1:]):
            continue  # what else it repeats an addition of one number would not
        key = dtype_to_onnx(output.dtype), len(output.shape)
        if key not in zeros:
            zeros[key] = _batch_zeros(graph, *key)
        node.op, node.inputs, node.attrs = "Add", [source, zeros[key]], {}


def _batch_zeros(graph: gs.Graph, onnx_type: int, rank: int) -> gs.Variable:
    """Zeros of shape [batch, 1, ...], from the input that has a pair of numbers for each picture."""
    (valid_hw,) = (tensor for tensor in graph.inputs if tensor.name == contract.VALID_HW)
    name = f"batch_zeros_{onnx_type}_{rank}"
    ones = [1] * (rank - 1)
    heights = gs.Variable(f"{name}_heights", dtype=valid_hw.dtype, shape=["batch", 1])
    zeros = gs.Variable(f"{name}_whole", dtype=valid_hw.dtype, shape=["batch", 1])
    shaped = gs.Variable(f"{name}_shaped", dtype=valid_hw.dtype, shape=["batch", *ones])
    floats = gs.Variable(name, dtype=np.dtype(tensor_dtype_to_np_dtype(onnx_type)), shape=["batch", *ones])
    first = gs.Constant(f"{name}_first", np.array([0], np.int64))
    zero = gs.Constant(f"{name}_zero", np.zeros(1, valid_hw.dtype))
    target = gs.Constant(f"{name}_target", np.array([0, *ones], np.int64))
    graph.nodes += [
        gs.Node("Gather", f"{name}_gather", {"axis": 1}, [valid_hw, first], [heights]),
        gs.Node("Mul", f"{name}_mul", {}, [heights, zero], [zeros]),
        gs.Node("Reshape", f"{name}_reshape", {}, [zeros, target], [shaped]),
        gs.Node("Cast", f"{name}_cast", {"to": onnx_type}, [shaped], [floats]),
    ]
    return floats


PASSES = (
    Pass(
        name="settle-sizes",
        reason="shapes follow from the inputs, but each layer asks for them anew: chains of small kernels",
        apply=settle_sizes,
    ),
    Pass(
        name="fix-reshape-targets",
        reason="a reshape asks for batch and tokens, which it could keep or infer",
        apply=fix_reshape_targets,
    ),
    Pass(
        name="spread-over-batch",
        reason="a constant that is repeated for each picture asks how many there are",
        apply=spread_over_batch,
    ),
    Pass(
        name="fold-constants",
        reason="token places, window ranges and anchors' sides follow from the picture's size alone",
        apply=fold_known_types,
    ),
    Pass(
        name="drop-round-trips",
        reason="the exporter divides whole numbers in INT64 and back: two kernels that copy",
        apply=drop_round_trips,
    ),
    Pass(
        name="merge-whole-numbers",
        reason="rounding up a size adds and subtracts constants one after the other",
        apply=merge_whole_numbers,
    ),
    Pass(
        name="slices-to-splits",
        reason="levels, heads' weights and halves of a cyclic shift are cut out one by one",
        apply=slices_to_splits,
    ),
    Pass(
        name="moves-to-gathers",
        reason="windows are padded, shifted twice and transposed: each step reads and writes the whole map",
        apply=moves_to_gathers,
    ),
    Pass(
        name="share-constants",
        reason="layers of one stage have equal ranges and rows under different names, so that nothing merges",
        apply=share_constants,
    ),
    Pass(
        name="merge-duplicates",
        reason="masks of a stride are built for the backbone and for the encoder, and those of windows in each block",
        apply=merge_duplicates,
    ),
    Pass(
        name="bypass-no-ops",
        reason="expansions and reshapes to the shape that is there are left over when sizes are known",
        apply=bypass_no_ops,
    ),
    Pass(
        name="merge-views",
        reason="reshape after reshape hides what follows from compilers that look for patterns",
        apply=merge_views,
    ),
)


def specialise_graph(graph: gs.Graph, sizes: Mapping[str, int], passes: Sequence[Pass] = PASSES) -> gs.Graph:
    """Fold everything that follows from sizes; the graph is changed in place and returned, its shapes noted.

    Args:
        graph: cleaned, of any precision.
        sizes: numbers for named sizes of the inputs, such as {"height": 800, "width": 1216}.
        passes: what to apply.

    Raises:
        ExportError: a shape does not follow from the sizes.
    """
    set_input_sizes(graph, sizes)
    return clean_graph(graph, tuple(passes))


def specialise_file(cleaned: Path, specialised: Path, sizes: Mapping[str, int]) -> None:
    """Specialise one ONNX file into another, which appears only when it is whole; see `specialise_graph`."""
    graph = specialise_graph(read_graph(cleaned), sizes)
    forget_inferred(graph)
    save_graph(graph, specialised)
