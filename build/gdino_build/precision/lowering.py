"""Write a lower precision into a graph: chosen nodes compute in FP16 or BF16, with casts where they meet the rest.

The precision then is in the file, and every runtime that takes types as they are computes alike: TensorRT in a strongly
typed network, OpenVINO on a CPU.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.exporters.onnx_exporter import dtype_to_onnx

from gdino_build.clean import forget_inferred, infer_shapes, redirect_consumers
from gdino_core.errors import ExportError

Type = np.dtype[Any]

LOW_TYPES: dict[str, Type] = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
# They compute nothing, and keep the type of what they move.
MOVERS = frozenset(
    (
        "Concat",
        "Expand",
        "Gather",
        "GatherElements",
        "Identity",
        "Pad",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    )
)


def lower_precision(graph: gs.Graph, precision: str, is_lowered: Callable[[gs.Node], bool]) -> None:
    """Let chosen nodes compute in a lower precision; the graph is changed in place.

    A node stays FP32 where the operator set does not define it for the type. Inputs and outputs of the graph keep their
    types. An input whose type may differ from the output's, such as GridSample's grid, keeps its own.

    Args:
        graph: of FP32.
        precision: one of LOW_TYPES.
        is_lowered: chooses among the nodes that compute.
    """
    low = LOW_TYPES[precision]
    infer_shapes(graph)
    graph.toposort()
    chosen: set[int] = set()  # nodes
    lowered: set[int] = set()  # tensors that they give
    for node in graph.nodes:
        sources = _typed_as_output(node, graph.opset)
        if not sources or not _is_defined(node.op, graph.opset, precision):
            continue
        variables = [tensor for tensor in sources if isinstance(tensor, gs.Variable)]
        if node.op in MOVERS and variables:  # without: a look into a table of weights
            is_chosen = all(id(tensor) in lowered for tensor in variables)
        else:
            is_chosen = is_lowered(node)
        if is_chosen:
            chosen.add(id(node))
            lowered.update(id(tensor) for tensor in node.outputs if _is_float(tensor))
    _write(graph, low, chosen, lowered)
    forget_inferred(graph.cleanup().toposort())


def _write(graph: gs.Graph, low: Type, chosen: set[int], lowered: set[int]) -> None:
    outputs = {id(tensor) for tensor in graph.outputs}
    copies: dict[int, gs.Tensor] = {}  # of a tensor, in the other precision
    for node in list(graph.nodes):
        is_chosen = id(node) in chosen
        typed = {id(tensor) for tensor in _typed_as_output(node, graph.opset)} if is_chosen else set()
        node.inputs = [
            _other_precision(graph, tensor, low if id(tensor) in typed else np.dtype(np.float32), copies)
            if _is_float(tensor) and (id(tensor) in typed) != (id(tensor) in lowered)
            else tensor
            for tensor in node.inputs
        ]
    for tensor in [tensor for tensor in graph.tensors().values() if id(tensor) in lowered]:
        if id(tensor) in outputs:
            inner = gs.Variable(f"{tensor.name}_low", dtype=low, shape=tensor.shape)
            redirect_consumers(tensor, inner)
            tensor.inputs[0].outputs = [inner if one is tensor else one for one in tensor.inputs[0].outputs]
            graph.nodes.append(_cast(inner, tensor))
        else:
            tensor.dtype = low


def _other_precision(graph: gs.Graph, tensor: gs.Tensor, dtype: Type, copies: dict[int, gs.Tensor]) -> gs.Tensor:
    if id(tensor) not in copies:
        name = f"{tensor.name}_{dtype.name}"
        if isinstance(tensor, gs.Constant):
            copies[id(tensor)] = gs.Constant(name, _rounded(tensor, dtype))
        else:
            copies[id(tensor)] = gs.Variable(name, dtype=dtype, shape=tensor.shape)
            graph.nodes.append(_cast(tensor, copies[id(tensor)]))
    return copies[id(tensor)]


def _rounded(constant: gs.Constant, dtype: Type) -> npt.NDArray[Any]:
    with np.errstate(over="ignore"):
        rounded: npt.NDArray[Any] = constant.values.astype(dtype)
    if not np.isfinite(rounded).all():
        raise ExportError(
            f"the constant {constant.name} reaches {np.abs(constant.values).max():g}, beyond what {dtype.name} holds",
            fix="keep what it feeds in FP32: gdino_build/precision/policy.py",
        )
    return rounded


def _cast(source: gs.Tensor, target: gs.Variable) -> gs.Node:
    name = f"cast_{target.name}"
    return gs.Node("Cast", name, {"to": dtype_to_onnx(target.dtype)}, inputs=[source], outputs=[target])


def _is_float(tensor: gs.Tensor) -> bool:
    return tensor.dtype is not None and dtype_to_onnx(tensor.dtype) == onnx.TensorProto.FLOAT


def _typed_as_output(node: gs.Node, opset: int) -> list[gs.Tensor]:
    """The FP32 inputs whose type must be that of the FP32 output; none where there is no such output."""
    if node.op == "Cast" or not node.outputs or not _is_float(node.outputs[0]):
        return []
    names = _input_types(node.op, opset)
    pairs = zip(node.inputs, names + names[-1:] * len(node.inputs), strict=False)  # the last one may repeat
    return [tensor for tensor, name in pairs if name == _output_type(node.op, opset) and _is_float(tensor)]


@cache
def _input_types(op: str, opset: int) -> tuple[str, ...]:
    return tuple(one.type_str for one in onnx.defs.get_schema(op, opset).inputs)


@cache
def _output_type(op: str, opset: int) -> str:
    name: str = onnx.defs.get_schema(op, opset).outputs[0].type_str
    return name


@cache
def _is_defined(op: str, opset: int, precision: str) -> bool:
    """Whether the operator set has the operator for the type."""
    wanted = f"tensor({LOW_TYPES[precision].name})"
    constraints = onnx.defs.get_schema(op, opset).type_constraints
    return any(wanted in one.allowed_type_strs for one in constraints if one.type_param_str == _output_type(op, opset))
