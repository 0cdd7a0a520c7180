"""Merge products of one tensor with several weights into one wider product, split after it: fewer and fuller kernels.

The sums are the same, number by number; a runtime may choose another order for a wider product, so answers agree to
rounding and not to the last bit.
"""

from collections import defaultdict

import numpy as np
import onnx_graphsurgeon as gs


def merge_products(graph: gs.Graph) -> None:
    """Merge all MatMuls of one tensor with constant matrices [C,N], each followed by nothing but its constant bias [N].

    Offsets and weights of a deformable attention, keys and values of the text in every decoder layer, queries and keys
    where both are made of the same.
    """
    groups: defaultdict[int, list[tuple[gs.Node, gs.Node]]] = defaultdict(list)
    for node in graph.toposort().nodes:
        if (bias := _bias_of(node)) is not None:
            groups[id(node.inputs[0])].append((node, bias))
    for pairs in groups.values():
        if len(pairs) > 1:
            _merge(graph, pairs)


def _merge(graph: gs.Graph, pairs: list[tuple[gs.Node, gs.Node]]) -> None:
    first, name = pairs[0][0], f"{pairs[0][0].name}_merged"
    source = first.inputs[0]
    weights = np.concatenate([product.inputs[1].values for product, _ in pairs], axis=1)
    biases = np.concatenate([constant.values for _, add in pairs for constant in _constants(add)])
    widths = [product.inputs[1].shape[1] for product, _ in pairs]
    shape = None if source.shape is None else [*source.shape[:-1], sum(widths)]
    multiplied, added = (
        gs.Variable(f"{name}_{step}", dtype=weights.dtype, shape=shape) for step in ("multiplied", "added")
    )
    outputs = [add.outputs[0] for _, add in pairs]
    for _, add in pairs:
        add.outputs.clear()
    graph.nodes += [
        gs.Node("MatMul", name, {}, [source, gs.Constant(f"{name}_weights", weights)], [multiplied]),
        gs.Node("Add", f"{name}_add", {}, [gs.Constant(f"{name}_biases", biases), multiplied], [added]),
        gs.Node(
            "Split", f"{name}_split", {"axis": -1}, [added, gs.Constant(f"{name}_widths", np.array(widths))], outputs
        ),
    ]


def _bias_of(node: gs.Node) -> gs.Node | None:
    """The addition of a constant bias that is all that follows a product with a constant matrix."""
    if node.op != "MatMul" or not isinstance(node.inputs[1], gs.Constant) or node.inputs[1].values.ndim != 2:
        return None
    readers = node.outputs[0].outputs
    if len(readers) != 1 or readers[0].op != "Add":
        return None
    shapes = [constant.values.shape for constant in _constants(readers[0])]
    return readers[0] if shapes == [node.inputs[1].values.shape[1:]] else None


def _constants(add: gs.Node) -> list[gs.Constant]:
    return [tensor for tensor in add.inputs if isinstance(tensor, gs.Constant)]
