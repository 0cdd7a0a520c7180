"""Whether a graph computes in the precision that it was made for is read from the network that TensorRT compiles."""

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from gdino_build.tensorrt.flavour import Flavour
from gdino_build.tensorrt.parsing import parse_onnx
from gdino_build.tensorrt.products import check_products, count_products
from gdino_core.errors import ConfigError
from tests.engines.conftest import GRAPHS, Variants
from tests.engines.graphs import node, quantised_product, write_graph

QUANTISED = ("QuantizeLinear", "DequantizeLinear")


def count_in(path: Path, flavour: Flavour, capability: int | None = None) -> dict[str, int]:
    log = flavour.module.Logger(flavour.module.Logger.INTERNAL_ERROR)
    builder = flavour.module.Builder(log)
    network = parse_onnx(flavour, builder, log, path)
    if capability is not None:
        check_products(flavour, capability, network)
    return count_products(flavour, network)


def products_of(path: Path) -> list[gs.Node]:
    return [one for one in gs.import_onnx(onnx.load(path)).nodes if one.op in ("MatMul", "Gemm", "Conv")]


@pytest.mark.parametrize("name", GRAPHS)
def test_every_product_of_a_lowered_graph_is_counted_in_its_precision(
    demo: Variants, flavour: Flavour, name: str
) -> None:
    number = len(products_of(demo.path("fp32", name)))
    assert count_in(demo.path("fp32", name), flavour) == {"fp32": number}
    assert count_in(demo.path("fp16", name), flavour) == {"fp16": number}


@pytest.mark.parametrize("name", GRAPHS)
def test_products_count_as_int8_exactly_when_both_sides_are_dequantised(
    demo: Variants, flavour: Flavour, name: str
) -> None:
    path = demo.path("int8", name)
    products = products_of(path)
    quantised = [
        one for one in products if all(side.inputs and side.inputs[0].op in QUANTISED for side in one.inputs[:2])
    ]
    assert 0 < len(quantised) < len(products)
    assert count_in(path, flavour) == {"int8": len(quantised), "fp32": len(products) - len(quantised)}


def test_a_cast_to_fp16_behind_the_dequantisation_hides_no_int8(flavour: Flavour, tmp_path: Path) -> None:
    nodes, constants = quantised_product(np.int8(0))
    product = nodes.pop()
    casts = [node("Cast", f"{name}", f"{name}_low", to=onnx.TensorProto.FLOAT16) for name in product.input]
    lowered = node("MatMul", " ".join(f"{name}_low" for name in product.input), "y")
    path = write_graph(tmp_path / "a.onnx", [*nodes, *casts, lowered], y_type=onnx.TensorProto.FLOAT16, **constants)
    assert count_in(path, flavour, capability=75) == {"int8": 1}


def test_int8_around_fp32_is_refused_on_turing_alone(flavour: Flavour, tmp_path: Path) -> None:
    nodes, constants = quantised_product(np.int8(0))
    path = write_graph(tmp_path / "a.onnx", nodes, **constants)
    assert count_in(path, flavour, capability=80) == {"int8": 1}
    with pytest.raises(ConfigError, match=r"cannot compile 'layer/MatMul' for SM=75"):
        count_in(path, flavour, capability=75)


def test_bf16_is_refused_on_turing_alone(flavour: Flavour, tmp_path: Path) -> None:
    nodes = [node("Cast", "x", "low", to=onnx.TensorProto.BFLOAT16), node("MatMul", "low low", "y")]
    path = write_graph(tmp_path / "a.onnx", nodes, y_type=onnx.TensorProto.BFLOAT16, axes=(8, 8))
    assert count_in(path, flavour, capability=80) == {"bf16": 1}
    with pytest.raises(ConfigError, match="no such products in BF16"):
        count_in(path, flavour, capability=75)
