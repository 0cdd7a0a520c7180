"""Deformable attention in OpenVINO: the compiled operator, or bilinear sampling as sums of weighted rows.

For want of the compiled operator, queries go through OpenVINO's own ones, a few at a time. A sample is a weighted sum
of the four cells around it, and an attention the weighted sum of its samples: a sum of 4 * levels * points rows of the
value. OpenVINO has an operator for such sums, EmbeddingBagPackedSum. It must know the number of its bags beforehand, so
queries go through it in chunks of equal size, whose row numbers and weights stay in the processor's caches.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import openvino.opset15 as ops
from openvino.frontend import NodeContext
from openvino.frontend.onnx import ConversionExtension
from openvino.op import tensor_iterator
from openvino.utils.node_factory import NodeFactory

from gdino_build.deformable import DOMAIN, OP

Node = Any  # or one of its outputs: OpenVINO's operators take both, and its stubs know neither

_LARGEST_CHUNK = 256  # queries; at 8 heads of 16 samples, their row numbers and weights take 512 KiB each
_I32, _I64, _F32 = np.int32, np.int64, np.float32


def deformable_attention_extension(library: Path | None) -> ConversionExtension:
    """Let OpenVINO read graphs in which `fuse_deformable_attentions` has written OP.

    Args:
        library: with the compiled operator; None builds it from OpenVINO's own.
    """
    if library is None:
        return ConversionExtension(OP, DOMAIN, _convert)
    factory = NodeFactory()
    factory.add_extension(library)

    def convert(node: NodeContext) -> list[Node]:
        inputs = [_float(node.get_input(index)) for index in range(node.get_input_size())]
        attributes = {name: node.get_attribute(name) for name in ("levels", "points")}
        outputs: list[Node] = factory.create(OP, inputs, attributes).outputs()
        return outputs

    return ConversionExtension(OP, DOMAIN, convert)


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    heads: int
    head_dim: int
    levels: int
    points: int
    chunk: int  # queries

    @property
    def samples(self) -> int:
        """Of a query and head."""
        return self.levels * self.points


def _convert(node: NodeContext) -> list[Node]:
    """Inputs and attributes as in `fuse_deformable_attentions`; the result is float32 [B,Q,heads*head_dim]."""
    value, weights, offsets, reference, cells = (_float(node.get_input(index)) for index in range(5))
    sizes = _Sizes(
        **{name: node.get_attribute(name) for name in ("heads", "head_dim", "levels", "points")},
        chunk=_chunk_size(offsets.get_partial_shape()[1]),
    )
    extent = _float(node.get_input(5)) if node.get_input_size() == 6 else None

    batch_queries = ops.gather(_shape(offsets), _const([0, 1], _I32), _const(0, _I32))  # [2]
    queries = ops.reduce_prod(batch_queries, _const([0], _I32), keep_dims=True)  # [1], of the whole batch
    missing = _missing(queries, sizes.chunk)
    chunked = [
        _pad(offsets, [2, sizes.heads, sizes.samples], missing),
        _pad(weights, [sizes.heads, sizes.samples], missing),
        _pad(_per_sample(_center(reference, cells), sizes), [2, 1, sizes.samples], missing),
        _pad(_first_rows(batch_queries, value), [1, 1, 1], missing),
    ]
    if extent is not None:
        scale = ops.multiply(ops.multiply(extent, cells), _const(0.5 / sizes.points, _F32))
        chunked.append(_pad(_per_sample(scale, sizes), [2, 1, sizes.samples], missing))
    table = _reshape(value, [-1, sizes.head_dim])
    sums = _sum_in_chunks(chunked, [table, *_levels(cells, sizes)], sizes)
    whole = ops.slice(sums, _const([0], _I32), queries, _const([1], _I32), _const([0], _I32))
    width = _const([sizes.heads * sizes.head_dim], _I32)
    outputs: list[Node] = ops.reshape(whole, ops.concat([batch_queries, width], 0), False).outputs()
    return outputs


def _sum_in_chunks(chunked: list[Node], shared: list[Node], sizes: _Sizes) -> Node:
    """Run the body over chunks of queries: [queries, heads*head_dim]."""
    chunked_parameters = [
        ops.parameter([sizes.chunk, *list(one.get_output_partial_shape(0))[1:]], _type(one)) for one in chunked
    ]
    shared_parameters = [ops.parameter(one.get_output_partial_shape(0), _type(one)) for one in shared]
    body = ov.Model([_chunk(chunked_parameters, shared_parameters, sizes)], [*chunked_parameters, *shared_parameters])
    loop = tensor_iterator()
    loop.set_body(body)
    for parameter, one in zip(chunked_parameters, chunked, strict=True):
        loop.set_sliced_input(parameter, one.output(0), 0, sizes.chunk, sizes.chunk, -1, 0)
    for parameter, one in zip(shared_parameters, shared, strict=True):
        loop.set_invariant_input(parameter, one.output(0))
    return loop.get_concatenated_slices(body.results[0].output(0), 0, sizes.chunk, sizes.chunk, -1, 0)


def _chunk(chunked: list[Node], shared: list[Node], sizes: _Sizes) -> Node:
    """The body: weighted sums of rows for C queries, [C, heads*head_dim]; N samples of a query and head.

    With t the distance from a cell, in cells, bilinear interpolation weighs it with max(0, 1 - |t|). The nearer of two
    cells is moved into the map where the sample lies outside: weights then are zero or right without further tests.
    """
    offsets, weights, center, first_row, *scale = chunked  # [C,2,H,N], [C,H,N], [C,2,1,N], [C,1,1,1]
    table, last, reach, stride, corner_row = shared  # [rows,d], [1,2,1,N], [1,2,1,2,N], [1,1,N], [1,1,4,N]
    heads, samples = sizes.heads, sizes.samples
    bags = sizes.chunk * heads

    place = ops.add(ops.multiply(offsets, scale[0]) if scale else offsets, center)  # in cells
    cell = ops.minimum(ops.maximum(ops.floor(place), _const(0.0, _F32)), last)
    apart = _reshape(ops.subtract(place, cell), [sizes.chunk, 2, heads, 1, samples])
    near_far = _const([[[[[0.0], [1.0]]]]], _F32)  # the cell and its neighbour
    share = ops.relu(ops.subtract(reach, ops.absolute(ops.subtract(apart, near_far))))  # [C,2,H,2,N]
    share_x, share_y = _halves(share, [sizes.chunk, heads, 2, samples])
    share_y = ops.multiply(share_y, _reshape(weights, [sizes.chunk, heads, 1, samples]))
    row_weights = ops.multiply(
        _reshape(share_y, [sizes.chunk, heads, 2, 1, samples]), _reshape(share_x, [sizes.chunk, heads, 1, 2, samples])
    )
    # Rows of the table go by picture, cell, head.
    column, line = _halves(cell, [sizes.chunk, heads, samples])
    row = ops.add(ops.multiply(line, stride), ops.multiply(column, _const(float(heads), _F32)))
    row = _reshape(ops.convert(row, "i32"), [sizes.chunk, heads, 1, samples])
    head = _const(np.arange(heads).reshape(1, heads, 1, 1), _I32)
    rows = ops.add(ops.add(row, corner_row), ops.add(head, first_row))  # [C,H,4,N]
    packed = [bags, 4 * samples]
    sums = ops.embedding_bag_packed_sum(table, _reshape(rows, packed), _reshape(row_weights, packed))
    return _reshape(sums, [sizes.chunk, heads * sizes.head_dim])


def _levels(cells: Node, sizes: _Sizes) -> list[Node]:
    """What the body needs to know of the levels, from their columns and rows [2,1,L,1].

    Returns:
        The last cell that has a neighbour, float32 [1,2,1,N]; how far the cell and its neighbour reach, float32
        [1,2,1,2,N], 0 for a neighbour that a level of one cell lacks; rows of the table from line to line of a level,
        float32 [1,1,N]; and rows from the start of a picture to the four cells around a sample, int32 [1,1,4,N].
    """
    heads = sizes.heads
    by_axis = _reshape(cells, [2, sizes.levels])
    has_neighbour = ops.convert(ops.greater(by_axis, _const(1.0, _F32)), "f32")
    last = ops.maximum(ops.subtract(by_axis, _const(2.0, _F32)), _const(0.0, _F32))
    reach = ops.concat([_const(np.ones((2, sizes.levels)), _F32), has_neighbour], 1)  # [2,2*L]
    columns, _ = _halves(by_axis, [sizes.levels], axis=0)
    right, below = _halves(has_neighbour, [sizes.levels], axis=0)
    below = ops.multiply(below, columns)
    count = ops.reduce_prod(by_axis, _const([0], _I32), keep_dims=False)  # [L]
    start = ops.cum_sum(count, _const(0, _I32), exclusive=True)
    corners = [start, ops.add(start, right), ops.add(start, below), ops.add(ops.add(start, right), below)]
    corner_rows = ops.multiply(
        ops.concat([ops.unsqueeze(corner, _const(0, _I32)) for corner in corners], 0), _const(heads, _F32)
    )
    return [
        _reshape(_repeat(last, sizes), [1, 2, 1, sizes.samples]),
        _reshape(_repeat(_reshape(reach, [4, sizes.levels]), sizes), [1, 2, 1, 2, sizes.samples]),
        _reshape(_repeat(ops.multiply(columns, _const(heads, _F32)), sizes), [1, 1, sizes.samples]),
        _reshape(_repeat(ops.convert(corner_rows, "i32"), sizes), [1, 1, 4, sizes.samples]),
    ]


def _center(reference: Node, cells: Node) -> Node:
    """Where a query's reference lies, in cells from the centre of the first one: [B,Q,2,1,L,1]."""
    return ops.subtract(ops.multiply(reference, cells), _const(0.5, _F32))


def _per_sample(by_level: Node, sizes: _Sizes) -> Node:
    """[B,Q,2,1,L,1] -> [B,Q,2,1,N]."""
    flat = ops.reshape(by_level, _const([0, 0, 2, 1, sizes.levels], _I64), True)
    return _repeat(flat, sizes)


def _repeat(by_level: Node, sizes: _Sizes) -> Node:
    """[..., L] -> [..., N]."""
    levels = _const(np.repeat(np.arange(sizes.levels), sizes.points), _I32)
    return ops.gather(by_level, levels, _const(-1, _I32))


def _first_rows(batch_queries: Node, value: Node) -> Node:
    """The first row of the table that is of each query's picture: int32 [B*Q,1,1,1]."""
    batch = ops.gather(batch_queries, _const(0, _I32), _const(0, _I32))
    pictures = ops.range(_const(0, _I32), batch, _const(1, _I32), "i32")
    rows = ops.reduce_prod(
        ops.gather(_shape(value), _const([1, 2], _I32), _const(0, _I32)), _const([0], _I32), keep_dims=False
    )
    by_picture = ops.unsqueeze(ops.multiply(pictures, rows), _const(1, _I32))
    return _reshape(ops.broadcast(by_picture, batch_queries), [-1, 1, 1, 1])


def _chunk_size(queries: ov.Dimension) -> int:
    """As many queries as a chunk may have; where their number is known, such that no chunk is filled up."""
    if queries.is_dynamic:
        return _LARGEST_CHUNK
    count: int = queries.get_length()
    chunks = -(-count // _LARGEST_CHUNK)
    return -(-count // chunks)


def _missing(queries: Node, chunk_size: int) -> Node:
    """How many queries the last chunk lacks, int32 [1]."""
    chunk = _const([chunk_size], _I32)
    return ops.mod(ops.subtract(chunk, ops.mod(queries, chunk)), chunk)


def _pad(x: Node, tail: list[int], missing: Node) -> Node:
    """[B,Q,...] -> [B*Q + missing, *tail], zeros at the end."""
    flat = _reshape(x, [-1, *tail])
    nothing = _const([0] * len(tail), _I32)
    zero = _const(0, _type(flat).to_dtype())
    return ops.pad(flat, _const([0] * (1 + len(tail)), _I32), ops.concat([missing, nothing], 0), "constant", zero)


def _halves(x: Node, shape: list[int], axis: int = 1) -> tuple[Node, Node]:
    """Split an axis of two elements, and give both halves a shape."""
    split = ops.split(x, _const(axis, _I32), 2)
    return _reshape(split.output(0), shape), _reshape(split.output(1), shape)


def _float(x: Node) -> Node:
    return x if x.get_element_type() == ov.Type.f32 else ops.convert(x, "f32").output(0)


def _shape(x: Node) -> Node:
    return ops.shape_of(x, "i32")


def _type(node: Node) -> ov.Type:
    return node.get_output_element_type(0)


def _reshape(x: Node, shape: list[int]) -> Node:
    return ops.reshape(x, _const(shape, _I64), False)


def _const(value: npt.ArrayLike, dtype: npt.DTypeLike) -> Node:
    return ops.constant(np.array(value, dtype))
