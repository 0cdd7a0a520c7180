from pathlib import Path

import pytest
import torch

from gdino_build.checkpoint import load_model
from gdino_build.clean import clean_file
from gdino_build.compiled_operator import compile_operator
from gdino_build.export import export_detector, export_text_encoder
from gdino_build.model import DEMO, GroundingDino
from gdino_build.random_weights import random_state_dict
from gdino_build.stages import OnnxStage
from gdino_core.contract import MODEL_DETECTOR, MODEL_TEXT_ENCODER


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def demo_state() -> dict[str, torch.Tensor]:
    return random_state_dict(DEMO)


@pytest.fixture(scope="session")
def demo_model(demo_state: dict[str, torch.Tensor]) -> GroundingDino:
    return load_model(DEMO, demo_state)


@pytest.fixture(scope="session")
def onnx_folder(demo_model: GroundingDino, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both cleaned graphs of the demo, and the exported ones in raw/."""
    folder = tmp_path_factory.mktemp("onnx")
    export_text_encoder(demo_model, folder / "raw" / f"{MODEL_TEXT_ENCODER}.onnx")
    export_detector(demo_model, folder / "raw" / f"{MODEL_DETECTOR}.onnx")
    for name in (MODEL_TEXT_ENCODER, MODEL_DETECTOR):
        clean_file(folder / "raw" / f"{name}.onnx", folder / f"{name}.onnx")
    return folder


@pytest.fixture(scope="session")
def compiled_operator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that engines are built with where there is a C++ compiler."""
    library = compile_operator(tmp_path_factory.mktemp("operators"))
    if library is None:
        pytest.skip("there is no C++ compiler")
    return library


@pytest.fixture(scope="session")
def raw_stage(onnx_folder: Path) -> OnnxStage:
    return OnnxStage(onnx_folder / "raw")


@pytest.fixture(scope="session")
def cleaned_stage(onnx_folder: Path) -> OnnxStage:
    return OnnxStage(onnx_folder)
