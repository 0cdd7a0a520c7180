"""Learn all shapes of a graph, and the values that follow from them, by following concrete sizes through it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from gdino_build.clean import infer_shapes, redirect_consumers
from gdino_build.exact_passes import fold_known_types
from gdino_build.parity import Array
from gdino_core.errors import ExportError

Shape = tuple[int, ...]

_VALUES_LIMIT = 256  # a constant with more values is a weight: no shape follows from it
_MOST_ROUNDS = 20  # each follows one more step of asking a tensor for a size that follows from another's
# Where a size stays open it is followed at two numbers: what is equal at both does not depend on it.
_OPEN_SIZES = {"batch": (2, 3), "tokens": (5, 7)}


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a graph is at concrete sizes, by tensor name: all shapes and types, and the values that follow from them."""

    sizes: Mapping[str, int]
    shapes: Mapping[str, Shape]
    types: Mapping[str, np.dtype[Any]]
    values: Mapping[str, Array]


def probe_open_sizes(graph: gs.Graph) -> list[Probe]:
    """Follow two numbers for each named size of the inputs, one name at a time.

    Raises:
        ExportError: an input has a named size other than batch and tokens, or see `probe`.
    """
    names = sorted({size for tensor in graph.inputs for size in tensor.shape if isinstance(size, str)})
    if unknown := set(names) - set(_OPEN_SIZES):
        raise ExportError(
            f"the inputs leave {', '.join(sorted(unknown))} open", fix="give numbers for height and width"
        )
    first = {name: _OPEN_SIZES[name][0] for name in names}
    return [probe(graph, first), *(probe(graph, first | {name: _OPEN_SIZES[name][1]}) for name in names)]


def probe(graph: gs.Graph, sizes: Mapping[str, int]) -> Probe:
    """Follow sizes through a graph; no weight is copied and nothing of the network runs.

    Args:
        graph: that is not changed.
        sizes: for each name of a size in the shapes of its inputs, a number.

    Raises:
        ExportError: the shape of a tensor does not follow from the sizes.
    """
    light = _without_weights(graph)
    set_input_sizes(light, sizes)
    names = set(light.tensors())
    shapes: dict[str, Shape] = {}
    types: dict[str, np.dtype[Any]] = {}
    for _ in range(_MOST_ROUNDS):
        infer_shapes(light)
        for name, tensor in light.tensors().items():
            if tensor.shape is not None and all(isinstance(size, int) for size in tensor.shape):
                shapes[name], types[name] = tuple(tensor.shape), tensor.dtype
        asked = [node for node in light.nodes if node.op == "Shape" and node.inputs[0].name in shapes]
        for node in asked:
            shape = np.array(shapes[node.inputs[0].name], np.int64)
            [answer] = node.outputs
            node.outputs.clear()
            answer.to_constant(shape[node.attrs.get("start", 0) : node.attrs.get("end")])
        fold_known_types(light)
        light.cleanup().toposort()
        if not asked:
            break
    values = {name: tensor.values for name, tensor in light.tensors().items() if isinstance(tensor, gs.Constant)}
    shapes |= {name: value.shape for name, value in values.items()}
    if lost := [tensor.name for node in light.nodes for tensor in node.outputs if tensor.name not in shapes]:
        raise ExportError(
            f"the shapes of {len(lost)} tensors do not follow from {dict(sizes)}; the first is {lost[0]}",
            fix="look at the operator that gives it: gdino-build inspect lists operators",
        )
    values = {name: value for name, value in values.items() if name in names}
    return Probe(sizes=dict(sizes), shapes=shapes, types=types, values=values)


def set_input_sizes(graph: gs.Graph, sizes: Mapping[str, int]) -> None:
    """Write numbers in place of named sizes into the shapes of inputs and outputs; other names stay."""
    for tensor in (*graph.inputs, *graph.outputs):
        tensor.shape = [sizes.get(size, size) if isinstance(size, str) else size for size in tensor.shape]


def name_size(probes: Sequence[Probe], found: Sequence[int]) -> int | str:
    """Express a size by the open ones: a number, "batch", "1276*batch" or "4*batch*tokens".

    Args:
        probes: of which each found the size to be the number at its place.
        found: those numbers.

    Raises:
        ExportError: it is not a multiple of a product of open sizes.
    """
    names = tuple(probes[0].sizes)
    for chosen in (subset for count in range(len(names) + 1) for subset in combinations(names, count)):
        divisors = [math.prod(one.sizes[name] for name in chosen) for one in probes]
        factors = {size / divisor for size, divisor in zip(found, divisors, strict=True)}
        if len(factors) == 1 and (factor := factors.pop()).is_integer():
            if not chosen:
                return int(factor)
            return "*".join(chosen if factor == 1 else (str(int(factor)), *chosen))
    raise ExportError(
        f"a size that is {found} at {[dict(one.sizes) for one in probes]} is no multiple of them",
        fix="fix batch and tokens too",
    )


def _without_weights(graph: gs.Graph) -> gs.Graph:
    """A copy in which weights are inputs: small to write, and their products are not folded."""
    light = graph.copy()
    for tensor in light.tensors().values():
        if isinstance(tensor, gs.Constant) and tensor.values.size > _VALUES_LIMIT:
            weight = gs.Variable(tensor.name, dtype=tensor.dtype, shape=tensor.shape)
            redirect_consumers(tensor, weight)
            light.inputs.append(weight)
    return light
