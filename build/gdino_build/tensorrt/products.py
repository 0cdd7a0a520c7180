"""Count the products of a network by the type that they compute in, and refuse types that the GPU lacks."""

from collections import Counter
from typing import Any

from gdino_build.tensorrt.flavour import RTX, Flavour
from gdino_core.errors import ConfigError

_TYPES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8"}
_TURING = 75


def count_products(flavour: Flavour, network: Any) -> dict[str, int]:
    """How many matrix products and convolutions compute in each type: {"fp16": 120, "int8": 80}.

    A product computes in INT8 when both of its sides were INT8 and are dequantised for it.
    """
    kinds = flavour.module.LayerType
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    # Tensors that DequantizeLinear gives, also in another shape, as the parser adds axes of size 1, and cast to FP16:
    # the compiler takes all of that into the product.
    dequantised = set()
    passed_on = (kinds.SHUFFLE, kinds.UNSQUEEZE, kinds.CAST)
    for layer in layers:  # in topological order
        is_passed_on = layer.type in passed_on and layer.get_input(0).name in dequantised
        if layer.type == kinds.DEQUANTIZE or is_passed_on:
            dequantised.add(layer.get_output(0).name)
    products = (layer for layer in layers if layer.type in (kinds.MATRIX_MULTIPLY, kinds.CONVOLUTION))
    counts = Counter(_computed_type(layer, dequantised) for layer in products)
    return dict(sorted(counts.items()))


def check_products(flavour: Flavour, capability: int, network: Any) -> None:
    """Refuse at once what the compiler would refuse after its work.

    Raises:
        ConfigError: TensorRT-RTX on Turing (SM 7.5), which compiles neither BF16 nor matrix products in FP32, those
            that INT8 numbers are dequantised to FP32 for included.
    """
    if flavour.name != RTX or capability != _TURING:
        return
    kinds = flavour.module.LayerType
    lacking = {kinds.MATRIX_MULTIPLY: ("FLOAT", "BF16"), kinds.CONVOLUTION: ("BF16",)}
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        if layer.type in lacking and layer.get_input(0).dtype.name in lacking[layer.type]:
            raise ConfigError(
                f"{flavour} cannot compile {layer.name!r} for SM={capability} (Turing): "
                f"it has no such products in {_TYPES[layer.get_input(0).dtype.name].upper()} there",
                fix="choose precision fp16, a GPU of SM=80 or newer, or full TensorRT",
            )


def _computed_type(layer: Any, dequantised: set[str]) -> str:
    sides = [layer.get_input(index) for index in range(min(layer.num_inputs, 2))]
    # A convolution keeps constant weights as a property; dequantised ones are its second input.
    if len(sides) == 2 and all(side is not None and side.name in dequantised for side in sides):
        return "int8"
    name: str = sides[0].dtype.name
    return _TYPES.get(name, name.lower())
