from pathlib import Path

import onnx
import onnx_graphsurgeon as gs
import pytest

from gdino_build.checkpoint import load_model
from gdino_build.clean import clean_file
from gdino_build.export import export_detector, export_text_encoder
from gdino_build.model import DEMO, ModelConfig
from gdino_build.precision.lowering import lower_precision
from gdino_build.precision.quantisation import quantisable_nodes, quantise
from gdino_build.random_weights import random_state_dict
from gdino_build.tensorrt.flavour import Flavour, find_flavour
from gdino_core.contract import MODEL_DETECTOR, MODEL_TEXT_ENCODER
from tests.engines.graphs import write_small_detector

GRAPHS = (MODEL_TEXT_ENCODER, MODEL_DETECTOR)
CAPABILITIES = (80, 89, 120)  # Ampere, Ada, Blackwell
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
THRESHOLD = 4.0  # of every activation: what the numbers are does not matter to the compiler


@pytest.fixture(scope="session")
def flavour() -> Flavour:
    return find_flavour("tensorrt-rtx")


@pytest.fixture(scope="session")
def small_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "detector.onnx"
    write_small_detector(path)
    return path


class Variants:
    """The cleaned graphs of one model in each precision, written when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # cleaned graphs are in fp32/

    def path(self, precision: str, name: str) -> Path:
        path = self.folder / precision / f"{name}.onnx"
        if not path.is_file():
            graph = gs.import_onnx(onnx.load(self.folder / "fp32" / path.name))
            if precision == "int8":
                quantise(graph, {one.inputs[0].name: THRESHOLD for one in quantisable_nodes(graph)})
            else:
                lower_precision(graph, precision, lambda one: one.op != "GridSample")
            path.parent.mkdir(exist_ok=True)
            onnx.save(gs.export_onnx(graph), path)
        return path


def make_variants(config: ModelConfig, folder: Path) -> Variants:
    """Export and clean both graphs, with random weights."""
    model = load_model(config, random_state_dict(config))
    for name, export in ((MODEL_TEXT_ENCODER, export_text_encoder), (MODEL_DETECTOR, export_detector)):
        export(model, folder / "raw" / f"{name}.onnx")
        clean_file(folder / "raw" / f"{name}.onnx", folder / "fp32" / f"{name}.onnx")
    return Variants(folder)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Variants:
    return make_variants(DEMO, tmp_path_factory.mktemp("demo"))
