"""Read an ONNX file into a TensorRT network, and say which node it stops at, why, and which pass could mend it."""

from pathlib import Path
from typing import Any

from gdino_build.tensorrt.flavour import Flavour
from gdino_build.tensorrt.manifest import PlanTensor
from gdino_build.tensorrt.optimisation_profiles import Dims
from gdino_core.errors import ExportError

_QUANTISED_OPERATORS = ("QLinear", "MatMulInteger", "ConvInteger", "DynamicQuantizeLinear")
# What TensorRT says, and what mends it. Each was seen with TensorRT-RTX 1.7; tests/engines shows them.
_ADVICE = (
    (
        "Non-zero zero point",
        "quantise symmetrically: make the variant with precision int8, or ONNX Runtime's quantiser with "
        "ActivationSymmetric and WeightSymmetric",
    ),
    ("input has type Int32", "leave biases unquantised: ONNX Runtime's quantiser needs QuantizeBias=False"),
    (
        "type UInt8",
        "cast UINT8 to FP32, FP16 or INT32 before any other operator, as the exported detector does: TensorRT can do "
        "nothing else with it",
    ),
    (
        "must have same input types",
        "a strongly typed network casts nothing by itself: lower the whole graph with lower_precision, which writes "
        "the casts",
    ),
    (
        "`input` and `grid` must be of same type",
        "leave GridSample in FP32 when the graph is lowered: ONNX lets it read FP16 features at FP32 places, TensorRT "
        "does not, and FP16 places are too coarse",
    ),
    (
        "Plugin not found",
        "save the graph before ONNX Runtime optimises it: operators of its own domain are unknown elsewhere; a plugin "
        "of TensorRT exists only in the full flavour",
    ),
    ("Failed to parse the ONNX model", "the file is damaged or no ONNX: run the stages before this one again"),
)


def parse_onnx(flavour: Flavour, builder: Any, log: Any, onnx_path: Path) -> Any:
    """Read a graph.

    Args:
        flavour: that compiles.
        builder: the module's Builder.
        log: the module's ILogger.
        onnx_path: the graph.

    Returns:
        The module's INetworkDefinition, strongly typed.

    Raises:
        ExportError: TensorRT cannot read a node, or does not type networks strongly.
    """
    trt = flavour.module
    network = builder.create_network(flavour.network_flags())
    if not network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED):
        raise ExportError(
            f"{flavour} made a network that is not strongly typed: it would choose precisions by itself",
            fix="install tensorrt 10 or newer, or tensorrt-rtx",
        )
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(onnx_path)):
        raise _refused(flavour, onnx_path, [parser.get_error(index) for index in range(parser.num_errors)])
    return network


def input_dims(network: Any) -> dict[str, Dims]:
    """Sizes of each input of a network; the name of the axis where the size may vary."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    return {tensor.name: _dims(tensor) for tensor in inputs}


def list_tensors(network: Any) -> tuple[dict[str, PlanTensor], dict[str, PlanTensor]]:
    """The inputs and the outputs of a network by name."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return _by_name(inputs), _by_name(outputs)


def _by_name(tensors: list[Any]) -> dict[str, PlanTensor]:
    return {tensor.name: PlanTensor(type_name=tensor.dtype.name, dims=tuple(tensor.shape)) for tensor in tensors}


def _dims(tensor: Any) -> Dims:
    shape = tuple(tensor.shape)
    return tuple(
        size if size >= 0 else tensor.get_dimension_name(axis) or f"axis {axis}" for axis, size in enumerate(shape)
    )


def _refused(flavour: Flavour, onnx_path: Path, errors: list[Any]) -> ExportError:
    lines = [f"{flavour} cannot read {onnx_path}:"]
    for error in errors:
        where = f"node {error.node_name()!r}, operator {error.node_operator()}: " if error.node() >= 0 else ""
        lines.append(f"  {where}{error.code().name}: {_meaning(error)}")
    advice = dict.fromkeys(_advice(error) for error in errors)
    return ExportError("\n".join(lines), fix="; ".join(advice))


def _meaning(error: Any) -> str:
    text = " ".join(error.desc().split("[checkMacros")[0].split())
    return f"TensorRT has no {error.node_operator()}" if text == "false" else text


def _advice(error: Any) -> str:
    operator, text = error.node_operator(), error.desc()
    for found, advice in _ADVICE:
        if found in text:
            return advice
    if operator.startswith(_QUANTISED_OPERATORS):
        return "quantise in QDQ form, as precision int8 does: TensorRT reads no operator of integer products"
    return (
        f"find what makes {operator or 'it'} with gdino-build inspect; the pass fold-constants removes what is constant"
    )
