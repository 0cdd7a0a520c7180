"""Say what is in an ONNX graph: nodes, operators, inputs and outputs."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx

SHAPE_OPERATORS = frozenset(
    (
        "Shape",
        "Range",
        "ConstantOfShape",
        "Expand",
        "Gather",
        "Concat",
        "Unsqueeze",
        "Squeeze",
        "Cast",
        "Constant",
    )
)  # mostly arithmetic on sizes: small kernels that a static engine folds away


@dataclass(frozen=True, kw_only=True)
class GraphSummary:
    """Counts and interfaces of one graph."""

    nodes: int
    shape_nodes: int
    bytes: int
    operators: Counter[str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def summarise(path: Path) -> GraphSummary:
    """Read a graph and count."""
    graph = onnx.load(path).graph
    operators = Counter(node.op_type for node in graph.node)
    return GraphSummary(
        nodes=len(graph.node),
        shape_nodes=sum(count for operator, count in operators.items() if operator in SHAPE_OPERATORS),
        bytes=path.stat().st_size,
        operators=operators,
        inputs=tuple(_describe(value) for value in graph.input),
        outputs=tuple(_describe(value) for value in graph.output),
    )


def format_comparison(name: str, before: GraphSummary, after: GraphSummary) -> str:
    """A report of one graph before and after cleaning."""
    lines = [
        f"{name}: {before.nodes} nodes raw, {after.nodes} cleaned; "
        f"{before.shape_nodes} and {after.shape_nodes} of them shape arithmetic; "
        f"{before.bytes / 2**20:.1f} and {after.bytes / 2**20:.1f} MiB",
        *(f"  in   {text}" for text in after.inputs),
        *(f"  out  {text}" for text in after.outputs),
        f"  {'operator':<22}{'raw':>7}{'cleaned':>9}",
    ]
    width = max((before.operators | after.operators).values())
    for operator, _ in (before.operators | after.operators).most_common():
        count = after.operators[operator]
        bar = "#" * -(-40 * count // width)
        lines.append(f"  {operator:<22}{before.operators[operator]:>7}{count:>9}  {bar}".rstrip())
    return "\n".join(lines)


def _describe(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    dims = ", ".join(dim.dim_param or str(dim.dim_value) for dim in tensor.shape.dim)
    return f"{value.name:<14}{onnx.TensorProto.DataType.Name(tensor.elem_type):<8}[{dims}]"
