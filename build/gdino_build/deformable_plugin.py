"""Write each deformable attention as MultiscaleDeformableAttnPlugin_TRT, version 2, which full TensorRT has built in.

The plugin's types must all be FP32 or all FP16. FP16 would round where to sample to a 2048th of the picture, several
pixels of a large one, so all of it stays FP32 here, with casts around it where the graph is of another type.

TensorRT's parser takes a function of the file before a plugin of the same name. So the file for TensorRT holds none;
`with_function_body` adds one with the plugin's documented semantics, for checks on a CPU.

Source: NVIDIA/TensorRT, plugin/multiscaleDeformableAttnPlugin: README.md (inputs), multiscaleDeformableAttnPlugin.cpp
(types, shapes), multiscaleDeformableIm2ColCuda.cuh (sampling); onnx/onnx-tensorrt, ModelImporter.cpp and
onnxOpImporters.cpp (order of the look-up, plugin_version).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.exporters.onnx_exporter import dtype_to_onnx

from gdino_build.clean import Pass
from gdino_build.deformable import DeformableAttention, find_deformable_attentions
from gdino_build.specialise import PASSES
from gdino_core.errors import ExportError

OP = "MultiscaleDeformableAttnPlugin_TRT"
DOMAIN = "trt.plugins"  # the parser looks for the name alone; checkers want a domain that is not ONNX's
PLUGIN_VERSION = "2"
_FLOAT = np.dtype(np.float32)
_INT = np.dtype(np.int32)

# For each of the four cells around a place: its row of the value, and its weight, 0 where it lies outside its level.
# value [N,S,M,D], shapes and starts of levels [L,2] and [L], locations [N,Q,M,L,P,2] as (x, y), weights [N,Q,M,L,P].
_CELL = """
    offset_{i} = Constant <value_floats = [{x}, {y}]> ()
    cell_{i} = Add (low, offset_{i})
    reach_{i} = Sub (one, offset_{i})
    share_{i} = Sub (reach_{i}, part)
    near_{i} = Abs (share_{i})
    above_{i} = GreaterOrEqual (cell_{i}, zero)
    below_{i} = Less (cell_{i}, sizes_xy)
    within_{i} = And (above_{i}, below_{i})
    mask_{i} = Cast <to = 1> (within_{i})
    masked_{i} = Mul (near_{i}, mask_{i})
    bilinear_{i} = ReduceProd <axes = [-1], keepdims = 0> (masked_{i})
    factor_{i} = Mul (bilinear_{i}, weights)
    last_{i} = Sub (sizes_xy, one)
    capped_{i} = Min (cell_{i}, last_{i})
    real_{i} = Max (capped_{i}, zero)
    whole_{i} = Cast <to = 7> (real_{i})
    x_{i} = Gather <axis = -1> (whole_{i}, index_0)
    y_{i} = Gather <axis = -1> (whole_{i}, index_1)
    row_{i} = Mul (y_{i}, columns)
    place_{i} = Add (row_{i}, x_{i})
    token_{i} = Add (place_{i}, first)
    tokens_{i} = Transpose <perm = [0, 2, 1, 3, 4]> (token_{i})
    listed_{i} = Reshape (tokens_{i}, list_target)
    spread_{i} = Expand (listed_{i}, value_width)
    taken_{i} = GatherElements <axis = 2> (by_head, spread_{i})
    factors_{i} = Transpose <perm = [0, 2, 1, 3, 4]> (factor_{i})
    column_{i} = Reshape (factors_{i}, list_target)
    term_{i} = Mul (taken_{i}, column_{i})
"""
_BODY = f"""
<domain: "{DOMAIN}", opset_import: ["" : 17]>
{OP} <plugin_version, plugin_namespace> (value, shapes, starts, locations, weights) => (output)
{{
    zero = Constant <value_float = 0.0> ()
    half = Constant <value_float = 0.5> ()
    one = Constant <value_float = 1.0> ()
    index_0 = Constant <value_int = 0> ()
    index_1 = Constant <value_int = 1> ()
    x_before_y = Constant <value_ints = [1, 0]> ()
    axis_1 = Constant <value_ints = [1]> ()
    sizes_yx = Cast <to = 1> (shapes)
    sizes_flat = Gather <axis = 1> (sizes_yx, x_before_y)
    sizes_xy = Unsqueeze (sizes_flat, axis_1)
    columns_flat = Gather <axis = 1> (shapes, index_1)
    columns_long = Cast <to = 7> (columns_flat)
    columns = Unsqueeze (columns_long, axis_1)
    starts_long = Cast <to = 7> (starts)
    first = Unsqueeze (starts_long, axis_1)
    scaled = Mul (locations, sizes_xy)
    center = Sub (scaled, half)
    low = Floor (center)
    part = Sub (center, low)
    by_head = Transpose <perm = [0, 2, 1, 3]> (value)
    list_target = Constant <value_ints = [0, 0, -1, 1]> ()
    value_shape = Shape (value)
    width_index = Constant <value_ints = [3]> ()
    width_flat = Gather <axis = 0> (value_shape, width_index)
    ones = Constant <value_ints = [1, 1, 1]> ()
    value_width = Concat <axis = 0> (ones, width_flat)
    {"".join(_CELL.format(i=i, x=float(x), y=float(y)) for i, (x, y) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))))}
    top = Add (term_0, term_1)
    bottom = Add (term_2, term_3)
    samples = Add (top, bottom)
    weight_shape = Shape (weights)
    query_index = Constant <value_ints = [1]> ()
    queries = Gather <axis = 0> (weight_shape, query_index)
    kept = Constant <value_ints = [0, 0]> ()
    rest = Constant <value_ints = [-1]> ()
    sample_target = Concat <axis = 0> (kept, queries, rest, width_flat)
    by_query = Reshape (samples, sample_target)
    sample_axis = Constant <value_ints = [3]> ()
    summed = ReduceSum <keepdims = 0> (by_query, sample_axis)
    output = Transpose <perm = [0, 2, 1, 3]> (summed)
}}
"""


def deformable_attentions_to_plugins(graph: gs.Graph) -> None:
    """Replace each deformable attention by one node of OP; the graph is changed in place.

    The graph is cleaned and not yet specialised; `passes_with_plugins` puts the step where it belongs.

    Raises:
        ExportError: a GridSample is not part of a deformable attention, or there is none.
    """
    noted = {id(tensor): (tensor.dtype, tensor.shape) for tensor in graph.tensors().values()}
    found = find_deformable_attentions(graph)
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Variable) and noted[id(tensor)][1] is not None:
            tensor.dtype, tensor.shape = noted[id(tensor)]  # sizes are named better by `settle_sizes`
    if not found:
        raise ExportError("the graph has no deformable attention", fix="name a detector, and take it before this step")
    cells = next(one.cells for one in found if one.cells is not None)
    shapes, starts = _level_shapes(graph, cells)
    for index, one in enumerate(found):
        _write_plugin(graph, one, f"deformable_attention_{index}", shapes, starts)
    graph.cleanup().toposort()
    if left := [node.name for node in graph.nodes if node.op == "GridSample"]:
        raise ExportError(
            f"{len(left)} samplings are in no deformable attention that was found, the first is {left[0]}",
            fix="export and clean again",
        )


def passes_with_plugins() -> tuple[Pass, ...]:
    """The passes of `specialise`, and this one where shapes are known and slices are still slices."""
    place = [step.name for step in PASSES].index("fold-constants") + 1
    plugin = Pass(
        name="deformable-attentions-to-plugins",
        reason="forty kernels an attention pass all samples through memory, several times",
        apply=deformable_attentions_to_plugins,
    )
    return (*PASSES[:place], plugin, Pass(name="fold-levels", reason=plugin.reason, apply=_FOLD), *PASSES[place:])


_FOLD = next(step.apply for step in PASSES if step.name == "fold-constants")


def with_function_body(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose plugins any ONNX runtime can run: a function of the plugin's semantics stands in the file."""
    checked = onnx.ModelProto()
    checked.CopyFrom(model)
    checked.functions.append(onnx.parser.parse_function(_BODY))
    if DOMAIN not in {one.domain for one in checked.opset_import}:
        checked.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return checked


def _level_shapes(graph: gs.Graph, cells: gs.Tensor) -> tuple[gs.Tensor, gs.Tensor]:
    """Rows and columns of each level int32 [L,2], and its first token int32 [L], of columns and rows [2,1,L,1]."""
    levels = cells.shape[2]
    whole = _add(graph, "Cast", "level_cells", _INT, list(cells.shape), [cells], to=onnx.TensorProto.INT32)
    flat = _add(graph, "Reshape", "level_columns_rows", _INT, [2, levels], [whole, np.array([2, levels])])
    rows_first = _add(graph, "Gather", "level_rows_columns", _INT, [2, levels], [flat, np.array([1, 0])], axis=0)
    shapes = _add(graph, "Transpose", "level_shapes", _INT, [levels, 2], [rows_first], perm=[1, 0])
    columns, rows = (
        _add(graph, "Gather", f"level_{name}", _INT, [levels], [flat, np.array(place)], axis=0)
        for place, name in enumerate(("columns", "rows"))
    )
    tokens = _add(graph, "Mul", "level_tokens", _INT, [levels], [columns, rows])
    before = np.tril(np.ones((levels, levels), np.int32), -1)  # each level starts after those before it
    earlier = _add(graph, "Mul", "level_earlier", _INT, [levels, levels], [tokens, before])
    starts = _add(graph, "ReduceSum", "level_starts", _INT, [levels], [earlier, np.array([1])], keepdims=0)
    return shapes, starts


def _write_plugin(graph: gs.Graph, one: DeformableAttention, name: str, shapes: gs.Tensor, starts: gs.Tensor) -> None:
    batch, queries = one.locations.shape[:2]
    split = [one.heads, one.levels, one.points]
    value, weights, locations = (
        _as_float(graph, tensor, f"{name}_{part}")
        for part, tensor in (("value", one.value), ("weights", one.weights), ("locations", one.locations))
    )
    weights = _add(
        graph, "Reshape", f"{name}_by_level", _FLOAT, [batch, queries, *split], [weights, np.array([0, 0, *split])]
    )
    locations = _add(
        graph,
        "Transpose",
        f"{name}_places",
        _FLOAT,
        [batch, queries, *split, 2],
        [locations],
        perm=[0, 1, 3, 4, 5, 2],
    )
    inputs = [value, shapes, starts, locations, weights]
    width = one.heads * one.head_dim
    gathered = gs.Variable(f"{name}_output", _FLOAT, [batch, queries, one.heads, one.head_dim])
    attributes = {"plugin_version": PLUGIN_VERSION, "plugin_namespace": ""}
    graph.nodes.append(gs.Node(OP, name, attributes, inputs, [gathered], domain=DOMAIN))
    joined = _add(
        graph, "Reshape", f"{name}_joined", _FLOAT, [batch, queries, width], [gathered, np.array([0, 0, width])]
    )
    one.output.inputs.clear()
    cast = {"to": dtype_to_onnx(one.output.dtype)}
    graph.nodes.append(gs.Node("Cast", f"{name}_cast", cast, [joined], [one.output]))


def _as_float(graph: gs.Graph, tensor: gs.Tensor, name: str) -> gs.Tensor:
    if dtype_to_onnx(tensor.dtype) == onnx.TensorProto.FLOAT:
        return tensor
    return _add(graph, "Cast", f"{name}_float", _FLOAT, list(tensor.shape), [tensor], to=onnx.TensorProto.FLOAT)


def _add(
    graph: gs.Graph,
    op: str,
    name: str,
    dtype: np.dtype[Any],
    shape: Sequence[int | str],
    inputs: Sequence[gs.Tensor | npt.NDArray[Any]],
    **attributes: object,
) -> gs.Variable:
    tensors = [
        gs.Constant(f"{name}_{place}", one) if isinstance(one, np.ndarray) else one for place, one in enumerate(inputs)
    ]
    output = gs.Variable(name, dtype=dtype, shape=list(shape))
    graph.nodes.append(gs.Node(op, f"{name}_{op.lower()}", attributes, tensors, [output]))
    return output
