"""Small ONNX graphs for the tests: built node by node, and run exactly as they are."""

from collections import Counter

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime

from gdino_build.parity import Array, Arrays

FLOAT = np.dtype(np.float32)


class Builder:
    """A graph under construction: `add` appends a node and returns its output."""

    def __init__(self, shape: list[int | str], dtype: np.dtype = FLOAT) -> None:
        self.x = gs.Variable("x", dtype=dtype, shape=shape)
        self.graph = gs.Graph(inputs=[self.x], opset=17)

    def add(self, op: str, *inputs: gs.Tensor | Array, **attributes: object) -> gs.Variable:
        name = f"{op}_{len(self.graph.nodes)}"
        tensors = [
            gs.Constant(f"{name}_{index}", value) if isinstance(value, np.ndarray) else value
            for index, value in enumerate(inputs)
        ]
        output = gs.Variable(f"{name}_output")
        self.graph.nodes.append(gs.Node(op, name=name, attrs=attributes, inputs=tensors, outputs=[output]))
        return output

    def size(self, tensor: gs.Tensor, axis: int) -> gs.Variable:
        """One size of a tensor as int64 [1], as the exporter asks for it."""
        size = self.add("Gather", self.add("Shape", tensor), np.array(axis), axis=0)
        return self.add("Unsqueeze", size, np.array([0]))

    def done(self, *outputs: gs.Variable, dtype: np.dtype = FLOAT) -> onnx.ModelProto:
        """The model; shapes are noted for its inputs and outputs alone, as the exporter does."""
        for output in outputs:
            output.dtype = dtype
        self.graph.outputs = list(outputs)
        model = onnx.shape_inference.infer_shapes(gs.export_onnx(self.graph))
        del model.graph.value_info[:]
        return model


def run(model: onnx.ModelProto, feed: Arrays) -> list[Array]:
    """Run exactly what the graph says, with none of ONNX Runtime's own optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    # Weights that are constant only after cleaning would be packed, and products summed in another order.
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    answers: list[Array] = session.run(None, dict(feed))
    return answers


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)
