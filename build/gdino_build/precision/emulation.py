"""Judge a lower precision on a CPU: the same graph in FP32, with every result rounded as the lowered graph rounds it.

No x86 CPU computes in FP16, and ONNX Runtime runs several operators in FP32 before it rounds. Here each operator that
the graph gives a lower type computes in FP32 from rounded inputs, and its result is rounded at once: what hardware does
that accumulates in FP32.
"""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import numpy_helper
from onnx_graphsurgeon.exporters.onnx_exporter import dtype_to_onnx

from gdino_build.precision.lowering import LOW_TYPES, MOVERS

_FLOAT32 = np.dtype(np.float32)
_LOW = {dtype_to_onnx(dtype) for dtype in LOW_TYPES.values()}


def emulate_in_fp32(model: onnx.ModelProto) -> onnx.ModelProto:
    """Turn a graph with FP16 or BF16 tensors into one of FP32 that computes the same numbers.

    Args:
        model: see `lowering`; its inputs and outputs are of neither type.
    """
    low = _low_tensors(model)
    graph = gs.import_onnx(_with_constants_in_fp32(model))
    for node in list(graph.nodes):
        if node.op not in MOVERS:  # what they move is rounded already
            for place, tensor in enumerate(node.outputs):
                if tensor.name in low:
                    node.outputs[place] = exact = gs.Variable(f"{tensor.name}_exact", dtype=_FLOAT32)
                    _round(graph, exact, tensor, low[tensor.name])
        if node.op == "Cast" and node.attrs["to"] in _LOW:
            node.attrs["to"] = onnx.TensorProto.FLOAT
    emulated: onnx.ModelProto = gs.export_onnx(graph.cleanup().toposort())
    return emulated


def _low_tensors(model: onnx.ModelProto) -> dict[str, int]:
    """Names of the tensors of a lower type that nodes give, to their ONNX types."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    kinds = {info.name: info.type.tensor_type.elem_type for info in (*inferred.value_info, *inferred.output)}
    return {name: kind for name, kind in kinds.items() if kind in _LOW}


def _with_constants_in_fp32(model: onnx.ModelProto) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.value_info[:]
    for constant in changed.graph.initializer:
        if constant.data_type in _LOW:
            values = numpy_helper.to_array(constant).astype(np.float32)
            constant.CopyFrom(numpy_helper.from_array(values, constant.name))
    return changed


def _round(graph: gs.Graph, exact: gs.Variable, tensor: gs.Variable, low: int) -> None:
    """Give a tensor the rounded numbers of another.

    Between the two casts they are reshaped: ONNX Runtime would drop casts that follow each other.
    """
    axes = gs.Constant(f"{tensor.name}_axes", np.array([0], np.int64))
    rounded, reshaped, back = (gs.Variable(f"{tensor.name}_{step}") for step in ("rounded", "reshaped", "back"))
    graph.nodes += [
        gs.Node("Cast", f"round_{tensor.name}", {"to": low}, [exact], [rounded]),
        gs.Node("Unsqueeze", f"part_{tensor.name}", {}, [rounded, axes], [reshaped]),
        gs.Node("Cast", f"back_{tensor.name}", {"to": onnx.TensorProto.FLOAT}, [reshaped], [back]),
        gs.Node("Squeeze", f"join_{tensor.name}", {}, [back, axes], [tensor]),
    ]
