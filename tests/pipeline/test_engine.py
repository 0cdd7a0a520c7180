"""The engine computes what the cleaned graph computes, at sizes where rounding could change a decision."""

from pathlib import Path

import pytest

from gdino_build.engine import onnx_to_openvino
from gdino_build.parity import compare
from gdino_build.stages import OnnxStage, OpenVinoStage
from gdino_build.verify import TOLERANCE, picture_cases
from gdino_core.contract import MODEL_DETECTOR, MODEL_TEXT_ENCODER
from gdino_core.openvino_engine import OpenVinoSettings


@pytest.fixture(scope="module", params=["compiled operator", "composed operator"])
def engine(
    onnx_folder: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> OpenVinoStage:
    folder = tmp_path_factory.mktemp("engine")
    operator = request.getfixturevalue("compiled_operator") if request.param == "compiled operator" else None
    for name in (MODEL_TEXT_ENCODER, MODEL_DETECTOR):
        onnx_to_openvino(onnx_folder / f"{name}.onnx", folder / f"{name}.xml", operator)
    return OpenVinoStage(folder, OpenVinoSettings())


@pytest.mark.parametrize(
    "size",
    [
        (128, 192),
        (800, 64),  # 50 cells at stride 16: the first centre is exactly 0.01, where anchors stop being proposed
        (64, 800),
    ],
)
def test_the_engine_answers_as_the_graph_does(
    engine: OpenVinoStage, cleaned_stage: OnnxStage, size: tuple[int, int]
) -> None:
    difference = compare(engine, cleaned_stage.forced, picture_cases((size,), (16, 32)))
    assert difference.within(TOLERANCE), difference
