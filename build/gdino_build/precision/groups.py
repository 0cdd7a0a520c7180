"""Name the groups of nodes that precision is chosen for: layers of one kind, and what their nodes do."""

import re
from collections import Counter

import onnx
import onnx_graphsurgeon as gs

from gdino_build.precision.lowering import MOVERS

_NUMBERS = re.compile(r"[._]\d+")
_KINDS = {
    "products": ("MatMul", "Gemm", "Conv"),
    "softmax": ("Softmax",),
    "norms and sums": ("LayerNormalization", "ReduceSum", "ReduceMax", "Sqrt"),
    "sampling": ("GridSample",),
}


def group_of(node: gs.Node) -> str:
    """Name the group of a node, such as `decoder/layers/self_attn: products`; a bias is in the group of its product."""
    modules = [_NUMBERS.sub("", part) for part in node.name.strip("/").split("/")[:-1]]
    kind = next((name for name, operators in _KINDS.items() if node.op in operators), "arithmetic")
    if _is_bias(node):
        kind = "products"
    return f"{'/'.join(modules[:3]) or 'geometry, masks, proposals'}: {kind}"


def _is_bias(node: gs.Node) -> bool:
    """Whether a node adds a bias to a product, which runtimes do in one."""
    if node.op != "Add":
        return False
    sources = [tensor.inputs[0].op for tensor in node.inputs if isinstance(tensor, gs.Variable) and tensor.inputs]
    return sources == ["MatMul"] and any(isinstance(tensor, gs.Constant) for tensor in node.inputs)


def list_groups(model: onnx.ModelProto) -> Counter[str]:
    """The groups of a graph in the order of its nodes, with the number of nodes that compute in FP32."""
    return Counter(
        group_of(node) for node in gs.import_onnx(model).nodes if node.op not in MOVERS and node.op != "Cast"
    )
