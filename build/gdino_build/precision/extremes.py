"""The largest magnitude of each tensor of a graph, measured without keeping the tensors."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime

from gdino_build.parity import Arrays

# Not of magnitudes, which would be a copy of each tensor. ONNX Runtime's ReduceMax passes over what is no number, and a
# sum does not.
_REDUCTIONS = ("ReduceMax", "ReduceMin", "ReduceSum")

NamedCase = tuple[str, Arrays]  # a name, and inputs of a graph


def largest_magnitudes(
    model: onnx.ModelProto, names: Sequence[str], cases: Iterable[NamedCase]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Run a graph of FP32 on each case.

    Args:
        model: the graph.
        names: of its tensors.
        cases: to run it on.

    Yields:
        The name of each case, and the largest magnitude of each tensor; infinite where a value is, or is no number.
    """
    session = _session_of_extremes(model, names)
    inputs = [one.name for one in session.get_inputs()]
    for case_name, case in cases:
        outputs = session.run(None, {name: case[name] for name in inputs})
        yield (
            case_name,
            {
                name: float("inf") if np.isnan(total) or np.isnan(high + low) else float(max(high, -low))
                for name, high, low, total in zip(names, outputs[::3], outputs[1::3], outputs[2::3], strict=True)
            },
        )


def _session_of_extremes(model: onnx.ModelProto, names: Sequence[str]) -> onnxruntime.InferenceSession:
    """Let a graph tell the largest and the smallest number of each tensor, in this order, instead of its answers.

    Each is asked right after its tensor, and the session keeps to that order: it holds no tensor longer than the
    graph does (2.0 GiB at 800x1344, where any other order held 16).
    """
    graph = gs.import_onnx(model)
    graph.toposort()
    wanted, nodes, extremes = set(names), [], {}

    def ask(tensors: Iterable[gs.Tensor]) -> None:
        for tensor in tensors:
            for op in _REDUCTIONS if tensor.name in wanted else ():
                extreme = gs.Variable(f"{op} of {tensor.name}", np.dtype(np.float32), [])
                extremes[tensor.name, op] = extreme
                nodes.append(gs.Node(op, extreme.name, {"keepdims": 0}, [tensor], [extreme]))

    ask(graph.inputs)
    for node in graph.nodes:
        nodes.append(node)
        ask(node.outputs)
    graph.nodes = nodes
    graph.outputs = [extremes[name, op] for name in names for op in _REDUCTIONS]
    options = onnxruntime.SessionOptions()
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED  # of equal priority: the order of the nodes
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # they keep what each size once needed
    serialised = gs.export_onnx(graph.cleanup()).SerializeToString()
    return onnxruntime.InferenceSession(serialised, options, ["CPUExecutionProvider"])
