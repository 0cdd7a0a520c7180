"""Turn chains of padding, shifting, cutting and transposing, as Swin's windows are made, into one look-up of rows.

A chain is run once on numbers of rows in place of the rows. What comes out says which row goes where, in any batch.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs
import onnxruntime

from gdino_build.clean import redirect_consumers
from gdino_build.exact_passes import Sizes

Rows = npt.NDArray[np.int32]

_PADDED = -1
_MOVES = frozenset(("Concat", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"))
_COPYING = frozenset(("Concat", "Pad", "Slice", "Split", "Transpose"))  # the others are views


def moves_to_gathers(graph: gs.Graph) -> None:
    """Replace each chain of two copies or more that keeps rows of channels whole by one Gather of rows.

    Padding is a row of zeros behind the others. Where the map was multiplied by a mask before, the rows of the map are
    looked up without it, and the padding is in the mask, which has one channel.
    """
    for node in graph.toposort().nodes:
        for output in list(node.outputs):
            if node.op in _MOVES and _leaves_chain(output, graph):
                _replace_chain(graph, output)


def _leaves_chain(tensor: gs.Variable, graph: gs.Graph) -> bool:
    if any(tensor is output for output in graph.outputs):
        return False
    return any(reader.op not in _MOVES for reader in tensor.outputs)


def _replace_chain(graph: gs.Graph, output: gs.Variable) -> None:
    found = _find_chain(output)
    rows = _follow_rows(*found, output) if found else None
    if found is None or rows is None:
        return
    source, nodes = found
    name, shape = f"{nodes[-1].name}_rows", list(output.shape)
    mask = _mask_before(source)
    if mask is None or not (rows == _PADDED).any():
        moved = _gather(graph, source, rows, shape, name)
    else:
        map_rows = _gather(graph, mask[0], np.maximum(rows, 0), shape, name)
        mask_rows = _gather(graph, mask[1], rows, [*shape[:-1], 1], f"{name}_mask")
        moved = gs.Variable(f"{name}_masked", dtype=output.dtype, shape=shape)
        graph.nodes.append(gs.Node("Mul", f"{name}_mul", {}, [map_rows, mask_rows], [moved]))
    redirect_consumers(output, moved)


def _find_chain(output: gs.Variable) -> tuple[gs.Variable, list[gs.Node]] | None:
    """The one tensor that the moves start from, and the moves; None where there are several, or others read between."""
    nodes: dict[int, gs.Node] = {}
    sources: dict[int, gs.Tensor] = {}
    waiting: list[gs.Tensor] = [output]
    while waiting:
        tensor = waiting.pop()
        producer = tensor.inputs[0] if tensor.inputs else None
        if producer is None or producer.op not in _MOVES:
            sources[id(tensor)] = tensor
        elif id(producer) not in nodes:
            nodes[id(producer)] = producer
            waiting += producer.inputs if producer.op == "Concat" else producer.inputs[:1]
    (source, *others) = sources.values()
    readers = [
        reader
        for node in nodes.values()
        for tensor in node.outputs
        if tensor is not output
        for reader in tensor.outputs
    ]
    copies = sum(node.op in _COPYING for node in nodes.values())
    if others or isinstance(source, gs.Constant) or copies < 2 or any(id(reader) not in nodes for reader in readers):
        return None
    return source, list(nodes.values())


def _follow_rows(source: gs.Variable, nodes: list[gs.Node], output: gs.Variable) -> Rows | None:
    """For each row of a picture's output the number of the picture's row in the source, or _PADDED.

    None where the chain takes rows apart, or mixes pictures.
    """
    channels, per_picture = source.shape[-1], _rows_of(source.shape)
    if not per_picture or source.shape[-1] != output.shape[-1] or any(map(_pads_other, nodes)):
        return None
    pictures = 2 if isinstance(source.shape[0], str) else 1
    shape = (pictures * per_picture, channels)
    numbers = np.arange(math.prod(shape), dtype=np.int32)
    moved = _run_moves(source, nodes, output, numbers, pictures).reshape(-1, channels)
    padded = moved[:, 0] == _PADDED
    rows = np.where(padded, _PADDED, moved[:, 0] // channels)
    whole = np.where(padded[:, None], _PADDED, rows[:, None] * channels + np.arange(channels))
    rows = rows.reshape(pictures, -1)
    shifted = np.where(rows[0] == _PADDED, _PADDED, rows[0] + per_picture)
    if not np.array_equal(moved, whole) or (pictures == 2 and not np.array_equal(rows[1], shifted)):
        return None
    first: Rows = rows[0].astype(np.int32)
    return first if first.max() < per_picture else None


def _rows_of(shape: Sizes) -> int:
    """Rows of a picture in a tensor whose first axis holds the pictures (all rows if fixed); 0 if it is otherwise."""
    leading, *middle, _ = shape
    if not all(isinstance(size, int) for size in (*middle, shape[-1])):
        return 0
    if isinstance(leading, str):
        factor, _, name = leading.rpartition("*")
        if name != "batch" or not (factor or "1").isdigit():
            return 0
        leading = int(factor or 1)
    return math.prod(int(size) for size in (leading, *middle))


def _pads_other(node: gs.Node) -> bool:
    """Whether a node pads with anything but zeros."""
    if node.op != "Pad":
        return False
    values = node.inputs[2:3]
    zero = not values or values[0].name == "" or (isinstance(values[0], gs.Constant) and not values[0].values.any())
    return not zero or node.attrs.get("mode", "constant") != "constant"


def _run_moves(
    source: gs.Variable, nodes: list[gs.Node], output: gs.Variable, numbers: Rows, pictures: int
) -> npt.NDArray[np.int32]:
    """Run the moves on whole numbers; padding is _PADDED."""
    leading = source.shape[0] if isinstance(source.shape[0], int) else len(numbers) // math.prod(source.shape[1:])
    given = gs.Variable("given", dtype=np.int32, shape=[leading, *source.shape[1:]])
    copies: dict[int, gs.Tensor] = {id(source): given}

    def copy(tensor: gs.Tensor) -> gs.Tensor:
        fresh = gs.Constant(tensor.name, tensor.values) if isinstance(tensor, gs.Constant) else gs.Variable(tensor.name)
        return copies.setdefault(id(tensor), fresh)

    moves = []
    for node in nodes:
        inputs = [copy(tensor) for tensor in node.inputs]
        if node.op == "Pad":
            inputs = [*inputs[:2], gs.Constant(f"{node.name}_padded", np.array(_PADDED, np.int32))]
        moves.append(gs.Node(node.op, node.name, dict(node.attrs), inputs, [copy(one) for one in node.outputs]))
    result = copy(output)
    result.dtype = np.dtype(np.int32)
    graph = gs.Graph(nodes=moves, inputs=[given], outputs=[result], opset=17)
    model = gs.export_onnx(graph.cleanup().toposort())
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    answers: list[npt.NDArray[np.int32]] = session.run(None, {"given": numbers.reshape(given.shape)})
    return answers[0]


def _mask_before(source: gs.Variable) -> tuple[gs.Tensor, gs.Tensor] | None:
    """A map and the mask of one channel that it was multiplied by, if a tensor is that product."""
    product = source.inputs[0] if source.inputs else None
    if product is None or product.op != "Mul" or any(one.shape is None for one in product.inputs):
        return None
    for map_, mask in (product.inputs, product.inputs[::-1]):
        if list(map_.shape) == list(source.shape) and list(mask.shape) == [*source.shape[:-1], 1]:
            return map_, mask
    return None


def _gather(graph: gs.Graph, source: gs.Tensor, rows: Rows, shape: Sizes, name: str) -> gs.Variable:
    """Look rows up: a tensor of the given shape; where rows are padded, a row of zeros is added behind the others."""
    per_picture, channels = _rows_of(source.shape), source.shape[-1]
    leading: int | str = "batch" if isinstance(source.shape[0], str) else 1
    flat_shape: Sizes = [leading, per_picture, channels]
    flat = _reshape(graph, source, flat_shape, f"{name}_flat")
    padded = rows == _PADDED
    if padded.any():
        pads = np.array([0, 0, 0, 0, 1, 0], np.int64)
        flat = _add(graph, "Pad", f"{name}_padded", [leading, per_picture + 1, channels], flat, pads)
    places = np.where(padded, per_picture, rows).astype(np.int32)
    gathered = _add(graph, "Gather", name, [leading, len(rows), channels], flat, places, axis=1)
    return _reshape(graph, gathered, shape, f"{name}_shaped")


def _reshape(graph: gs.Graph, source: gs.Tensor, shape: Sizes, name: str) -> gs.Variable:
    target = [size if isinstance(size, int) else -1 for size in shape]  # the pictures, nothing else is open
    return _add(graph, "Reshape", name, shape, source, np.array(target, np.int64))


def _add(
    graph: gs.Graph, op: str, name: str, shape: Sizes, source: gs.Tensor, constant: npt.NDArray[Any], **attributes: int
) -> gs.Variable:
    output = gs.Variable(f"{name}_output", dtype=source.dtype, shape=shape)
    graph.nodes.append(gs.Node(op, name, attributes, [source, gs.Constant(f"{name}_constant", constant)], [output]))
    return output
