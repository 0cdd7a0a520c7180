"""Count the small operators of a graph: each a launch of its own that computes nothing of the network.

A compiler turns products, norms and samplings into kernels, and fuses what goes value by value into them. What is left
over costs a launch, or a step on the host, however small its tensors are.
"""

from collections import Counter
from dataclasses import dataclass

import onnx

# Each is a kernel with work to do; or, as a fusion's core, takes in what goes value by value around it.
CORES = frozenset(
    (
        "Conv",
        "Gemm",
        "GridSample",
        "LayerNormalization",
        "MatMul",
        "MultiscaleDeformableAttnPlugin_TRT",
        "ReduceMax",
        "ReduceMean",
        "ReduceSum",
        "Softmax",
        "TopK",
    )
)
# The same numbers in the same order under another shape: no kernel.
VIEWS = frozenset(("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"))
# They move or repeat numbers, and read and write memory of their own.
MOVERS = frozenset(
    ("Concat", "Expand", "Gather", "GatherElements", "GatherND", "Pad", "Slice", "Split", "Tile", "Transpose")
)
# They make tensors out of sizes.
MAKERS = frozenset(("ConstantOfShape", "CumSum", "NonZero", "Range", "ScatterND", "Shape"))
_FORBIDDEN = ("Shape", "Range", "CumSum", "GatherND")  # none may be left where sizes are known


@dataclass(frozen=True, kw_only=True)
class OperatorCounts:
    """Nodes of a graph, each in one class.

    Attributes:
        nodes: all but constants.
        size_arithmetic: makers, and nodes of any kind that read nothing but sizes and constants.
        movers: of MOVERS, the rest of them.
        views: of VIEWS, the rest of them.
        cores: of CORES.
        fusable: all others, which go value by value.
        forbidden: Shape, Range, CumSum and GatherND.
    """

    nodes: int
    size_arithmetic: int
    movers: int
    views: int
    cores: int
    fusable: int
    forbidden: int

    @property
    def small(self) -> int:
        """Small operators that no compiler fuses: arithmetic on sizes, and movers."""
        return self.size_arithmetic + self.movers


def count_operators(graph: onnx.GraphProto) -> OperatorCounts:
    """Put each node of a graph into its class; nodes are in topological order."""
    of_sizes = {tensor.name for tensor in graph.initializer} | {""}
    classes: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type == "Constant":
            of_sizes.update(node.output)
            continue
        if node.op_type in MAKERS or (of_sizes.issuperset(node.input) and node.op_type != "DequantizeLinear"):
            of_sizes.update(node.output)  # what is dequantised is a weight, and taken in by its product
        classes[_class_of(node, of_sizes)] += 1
    operators = Counter(node.op_type for node in graph.node)
    return OperatorCounts(
        nodes=classes.total(),
        forbidden=sum(operators[name] for name in _FORBIDDEN),
        **{name: classes[name] for name in ("size_arithmetic", "movers", "views", "cores", "fusable")},
    )


def _class_of(node: onnx.NodeProto, of_sizes: set[str]) -> str:
    if of_sizes.issuperset(node.output):
        return "size_arithmetic"
    for name, operators in (("movers", MOVERS), ("views", VIEWS), ("cores", CORES)):
        if node.op_type in operators:
            return name
    return "fusable"


def format_counts(rows: dict[str, OperatorCounts]) -> str:
    """Counts as a table, a row for each graph."""
    columns = ("nodes", "small", "size_arithmetic", "movers", "views", "cores", "fusable", "forbidden")
    lines = [f"{'':<34}" + "".join(f"{column.removesuffix('_arithmetic'):>10}" for column in columns)]
    for name, one in rows.items():
        lines.append(f"{name:<34}" + "".join(f"{getattr(one, column):>10}" for column in columns))
    return "\n".join(lines)
