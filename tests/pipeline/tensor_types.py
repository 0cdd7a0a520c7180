"""Types of a graph's tensors, for the tests of lower precisions; inferred anew, with a strict check of all."""

import onnx

from gdino_build.precision.lowering import MOVERS


def inferred_types(model: onnx.ModelProto) -> dict[str, str]:
    """ONNX's name of the type that each node gives first, such as FLOAT16, by the node's name."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    kinds = {info.name: info.type.tensor_type.elem_type for info in (*inferred.value_info, *inferred.output)}
    return {node.name: onnx.TensorProto.DataType.Name(kinds[node.output[0]]) for node in model.graph.node}


def types_of_computing(model: onnx.ModelProto) -> dict[str, str]:
    """Likewise, of the nodes that compute alone: no casts, and none that only move numbers."""
    idle = {node.name for node in model.graph.node if node.op_type in {*MOVERS, "Cast"}}
    return {name: kind for name, kind in inferred_types(model).items() if name not in idle}
