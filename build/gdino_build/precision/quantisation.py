"""Write INT8 into a graph: weights as int8 numbers, and activations rounded to int8 before each product with weights.

The form is explicit QDQ: QuantizeLinear and DequantizeLinear around a product, symmetric, per output channel for
weights and per tensor for activations. OpenVINO, ONNX Runtime and TensorRT turn it into integer products. Products of
two activations, such as attention scores and logits, stay as they are: quantised, they destroy the result.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

_LEVELS = 127  # of int8 on either side of zero; -128 is left out, so that zero is in the middle


def quantisable_nodes(graph: gs.Graph) -> list[gs.Node]:
    """The nodes that multiply activations with weights: Conv, and MatMul with a matrix.

    A stack of matrices, such as the fusion's for its heads, is left out: no runtime has integer products with it.
    """
    weight_dims = {"Conv": 4, "MatMul": 2}
    return [
        node
        for node in graph.nodes
        if node.op in weight_dims
        and isinstance(node.inputs[0], gs.Variable)
        and isinstance(node.inputs[1], gs.Constant)
        and node.inputs[1].values.ndim == weight_dims[node.op]
    ]


def quantise(graph: gs.Graph, thresholds: Mapping[str, float]) -> int:
    """Quantise each product whose activation has a threshold; the graph is changed in place.

    Args:
        graph: of FP32.
        thresholds: by name of an activation, the magnitude that becomes 127; larger ones are clipped.

    Returns:
        How many products are quantised.
    """
    rounded: dict[str, gs.Variable] = {}  # activations and weights, which several products may share
    nodes = [node for node in quantisable_nodes(graph) if thresholds.get(node.inputs[0].name, 0.0) > 0]
    for node in nodes:
        activation, weight = node.inputs[:2]
        if activation.name not in rounded:
            rounded[activation.name] = _round_activation(graph, activation, thresholds[activation.name])
        if weight.name not in rounded:
            axis = 0 if node.op == "Conv" else weight.values.ndim - 1  # of the output channels
            rounded[weight.name] = _round_weight(graph, weight, axis)
        node.inputs[0], node.inputs[1] = rounded[activation.name], rounded[weight.name]
    graph.cleanup().toposort()
    return len(nodes)


def quantised_weight(
    values: npt.NDArray[np.float32], axis: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Round weights to int8.

    Args:
        values: the weights.
        axis: of the output channels.

    Returns:
        The numbers int8 of the same shape in [-127, 127], and the scale float32 [channels] of each channel.
    """
    others = tuple(one for one in range(values.ndim) if one != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / _LEVELS, 1.0).astype(np.float32)
    return np.clip(np.rint(values / scale), -_LEVELS, _LEVELS).astype(np.int8), scale.ravel()


def _round_activation(graph: gs.Graph, activation: gs.Variable, threshold: float) -> gs.Variable:
    name = activation.name
    scale = gs.Constant(f"{name}_scale", np.array(threshold / _LEVELS, np.float32))
    zero = gs.Constant(f"{name}_zero", np.array(0, np.int8))
    numbers = gs.Variable(f"{name}_int8", np.dtype(np.int8))
    result = gs.Variable(f"{name}_rounded", np.dtype(np.float32))
    graph.nodes += [
        gs.Node("QuantizeLinear", f"quantise_{name}", {}, [activation, scale, zero], [numbers]),
        gs.Node("DequantizeLinear", f"dequantise_{name}", {}, [numbers, scale, zero], [result]),
    ]
    return result


def _round_weight(graph: gs.Graph, weight: gs.Constant, axis: int) -> gs.Variable:
    values, scale = quantised_weight(weight.values, axis)
    result = gs.Variable(f"{weight.name}_rounded", np.dtype(np.float32))
    inputs = [
        gs.Constant(f"{weight.name}_int8", values),
        gs.Constant(f"{weight.name}_scale", scale),
        gs.Constant(f"{weight.name}_zero", np.zeros(scale.shape, np.int8)),
    ]
    graph.nodes.append(gs.Node("DequantizeLinear", f"dequantise_{weight.name}", {"axis": axis}, inputs, [result]))
    return result
