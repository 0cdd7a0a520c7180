import importlib.util
import json
import sys
from io import BytesIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from gdino_core.detections import DetectionOptions
from gdino_core.draining import DRAIN_FILE_VARIABLE
from gdino_core.errors import ConfigError, ImageError
from gdino_core.openvino_engine import OpenVinoSettings
from gdino_core.request import DetectionRequest
from gdino_core.settings import PreprocessSettings
from gdino_core.step_metrics import StepMetrics
from gdino_core.triton_adapter import answer_each, input_arrays, read_parameters
from tests.serve.asking import png
from tests.serve.conftest import SOURCES

FINAL = 1
SETTINGS = PreprocessSettings(short_side=32, long_side=64, resolution_buckets=((128, 128),), text_buckets=(16,))

QUEUE = {"default_queue_policy": {"max_queue_size": 64}}
ENGINE_PARAMETERS = OpenVinoSettings(threads=1).to_parameters() | SETTINGS.to_parameters()


class StandInTensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        assert array.flags.c_contiguous
        self.name, self.array = name, array

    def as_numpy(self) -> np.ndarray:
        return self.array


class StandInResponse:
    def __init__(self, output_tensors: list[StandInTensor], error: Any = None) -> None:
        self.outputs = {tensor.name: tensor.array for tensor in output_tensors}
        self.error = error


class StandInError:
    INVALID_ARG, UNAVAILABLE, INTERNAL = "INVALID_ARG", "UNAVAILABLE", "INTERNAL"

    def __init__(self, message: str, code: str) -> None:
        self.message, self.code = message, code


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put a stand-in for triton_python_backend_utils in place; gives what is logged."""
    lines: list[str] = []
    utils: Any = ModuleType("triton_python_backend_utils")
    utils.Tensor, utils.InferenceResponse, utils.TritonError = StandInTensor, StandInResponse, StandInError
    utils.Logger = SimpleNamespace(log_error=lines.append)
    utils.get_input_tensor_by_name = lambda request, name: request.get(name)
    utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL = FINAL
    utils.MetricFamily = StandInMetricFamily
    monkeypatch.setattr(StandInMetricFamily, "counted", {})
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
    return lines


class StandInMetricFamily:
    """Numbers by name and labels, as the server adds them up."""

    COUNTER, GAUGE = "counter", "gauge"
    counted: ClassVar[dict[tuple[str, ...], float]] = {}

    def __init__(self, name: str, description: str, kind: str) -> None:
        assert kind in (self.COUNTER, self.GAUGE)
        assert description
        self._name = name

    def Metric(self, labels: dict[str, str]) -> SimpleNamespace:
        key = (self._name, *labels.values())
        self.counted[key] = 0.0

        def increment(by: float) -> None:
            self.counted[key] += by

        def assign(value: float) -> None:
            self.counted[key] = value

        return SimpleNamespace(increment=increment, set=assign)


class StandInRequest(dict[str, StandInTensor]):
    """A request, and the responses that were sent before `execute` was done."""

    def __init__(self, tensors: dict[str, StandInTensor]) -> None:
        super().__init__(tensors)
        self.sent: list[StandInResponse] = []

    def get_response_sender(self) -> "StandInRequest":
        return self

    def send(self, response: StandInResponse, flags: int) -> None:
        assert flags == FINAL
        self.sent.append(response)


def _request(**arrays: Any) -> StandInRequest:
    return StandInRequest({name: StandInTensor(name, np.asarray(array)) for name, array in arrays.items()})


def _executed(model: Any, requests: list[StandInRequest]) -> list[StandInResponse]:
    """The one response of each request, from a model that sends them itself."""
    assert model.execute(requests) is None
    responses = []
    for request in requests:
        [response] = request.sent
        responses.append(response)
    return responses


def _texts(*values: bytes) -> np.ndarray:
    return np.array([values], dtype=np.object_)


def _model(name: str, parameters: dict[str, str], repository: Path | None = None) -> Any:
    spec = importlib.util.spec_from_file_location(f"{name}_adapter", SOURCES / name / "1" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    entries = {key: {"string_value": value} for key, value in {"contract_version": "1", **parameters}.items()}
    model.initialize(
        {
            "model_config": json.dumps({"parameters": entries, "dynamic_batching": QUEUE}),
            "model_repository": str(repository),
            "model_version": "1",
            "model_name": name,
        }
    )
    return model


def test_config_of_another_contract_version_is_refused() -> None:
    config = json.dumps({"parameters": {"contract_version": {"string_value": "0"}}})
    with pytest.raises(ConfigError, match="has contract_version 0"):
        read_parameters(config)


def test_absent_optional_inputs_are_left_out(logged: list[str]) -> None:
    assert input_arrays(_request(A=[1]), ("A", "B")).keys() == {"A"}


def test_each_request_gets_its_own_answer_or_error(logged: list[str]) -> None:
    def answer(request: Any) -> dict[str, np.ndarray]:
        if isinstance(request, Exception):
            raise request
        return {"OUT": np.array([request])}

    counted: list[str] = []
    good, bad, broken, refused, last = answer_each(
        [1, ImageError("no picture", fix="send one"), KeyError("x"), ConfigError("bad bucket"), 5],
        answer,
        counted.append,
    )
    assert counted == ["INVALID_ARGUMENT", "INTERNAL", "INTERNAL"]
    assert (good.outputs["OUT"], last.outputs["OUT"]) == ([1], [5])
    assert (bad.error.code, bad.error.message) == ("INVALID_ARG", "no picture\n  fix: send one")
    assert (broken.error.code, broken.error.message) == ("INTERNAL", "KeyError in the server; its log has the details")
    assert (refused.error.code, refused.error.message) == ("INTERNAL", "bad bucket")
    assert len(logged) == 2
    assert "Traceback" in logged[0]


def test_a_queue_without_a_limit_is_never_told_to_be_full(logged: list[str]) -> None:
    unlimited = {"dynamic_batching": {"default_queue_policy": {"max_queue_size": 0}}}
    StepMetrics({"model_name": "preprocess", "model_config": json.dumps(unlimited)})
    assert not [name for name, *_ in StandInMetricFamily.counted if name == "gdino_queue_size"]


def test_preprocess_answers_good_requests_beside_a_bad_one(logged: list[str]) -> None:
    model = _model("preprocess", SETTINGS.to_parameters())
    good, bad = model.execute(
        [
            _request(IMAGE=_texts(png(40, 80)), PROMPT=_texts(b"cat .")),
            _request(IMAGE=_texts(b"garbage"), PROMPT=_texts(b"cat .")),
        ]
    )
    assert {name: (array.dtype.name, array.shape) for name, array in good.outputs.items()} == {
        "PIXELS": ("uint8", (1, 3, 128, 128)),
        "VALID_HW": ("int32", (1, 2)),
        "REQUEST": ("object", (1, 1)),
        "INPUT_IDS": ("int32", (1, 16)),
        "POSITION_IDS": ("int32", (1, 16)),
        "PHRASE_IDS": ("int32", (1, 16)),
    }
    assert StandInMetricFamily.counted == {
        ("gdino_errors", "preprocess", "INVALID_ARGUMENT"): 1,
        ("gdino_errors", "preprocess", "UNAVAILABLE"): 0,
        ("gdino_errors", "preprocess", "INTERNAL"): 0,
        ("gdino_queue_size", "preprocess"): 64,
        ("gdino_preprocess_running", "preprocess"): 0,
    }
    asked = DetectionRequest.from_bytes(good.outputs["REQUEST"][0, 0])
    assert asked == DetectionRequest(texts=("cat .",), image_hw=(40, 80), options=DetectionOptions())
    assert bad.error.code == "INVALID_ARG"


def test_pixels_are_prepared_as_those_of_a_file(logged: list[str]) -> None:
    model = _model("preprocess", SETTINGS.to_parameters())
    pixels = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    encoded, raw, both, neither = model.execute(
        [
            _request(IMAGE=_texts(file.getvalue()), PROMPT=_texts(b"cat .")),
            _request(IMAGE_RGB=pixels[None], PROMPT=_texts(b"cat .")),
            _request(IMAGE_RGB=pixels[None], IMAGE=_texts(file.getvalue()), PROMPT=_texts(b"cat .")),
            _request(PROMPT=_texts(b"cat .")),
        ]
    )
    for name, expected in encoded.outputs.items():
        np.testing.assert_array_equal(raw.outputs[name], expected)
    assert (both.error.code, neither.error.code) == ("INVALID_ARG", "INVALID_ARG")
    assert "both IMAGE and IMAGE_RGB" in both.error.message
    assert "neither IMAGE nor IMAGE_RGB" in neither.error.message


def test_labels_beyond_one_prompt_are_rows_of_the_same_picture(logged: list[str]) -> None:
    model = _model("preprocess", SETTINGS.to_parameters())
    labels = [f"red thing number {number}".encode() for number in range(12)]
    (response,) = model.execute([_request(IMAGE=_texts(png(40, 80)), PROMPT=_texts(*labels))])
    rows = len(response.outputs["INPUT_IDS"])
    assert rows > 1
    assert {len(array) for array in response.outputs.values()} == {rows}
    assert (response.outputs["PIXELS"] == response.outputs["PIXELS"][0]).all()
    assert [bool(content) for [content] in response.outputs["REQUEST"]] == [True, *[False] * (rows - 1)]


def test_preprocess_refuses_while_the_server_stops(
    logged: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _model("preprocess", SETTINGS.to_parameters())
    monkeypatch.setenv(DRAIN_FILE_VARIABLE, str(tmp_path / "drain"))
    request = _request(IMAGE=_texts(png(40, 80)), PROMPT=_texts(b"cat ."))
    assert model.execute([request])[0].error is None
    (tmp_path / "drain").touch()
    assert model.execute([request])[0].error.code == "UNAVAILABLE"


def test_postprocess_turns_logits_into_detections(logged: list[str]) -> None:
    model = _model("postprocess", SETTINGS.to_parameters())
    logits = np.full((1, 1, 16), -10, np.float32)
    logits[0, 0, 1] = 3
    asked = DetectionRequest(texts=("cat", "dog"), image_hw=(40, 80), options=DetectionOptions(max_detections=5))
    request = _request(
        LOGITS=logits, BOXES_CXCYWH=np.array([[[0.5, 0.5, 1, 1]]], np.float32), REQUEST=_texts(asked.to_bytes())
    )
    (response,) = model.execute([request])
    assert response.outputs["BOXES"].tolist() == [[[0, 0, 80, 40]]]
    assert response.outputs["LABELS"].tolist() == [[b"cat"]]
    assert response.outputs["LABEL_INDEX"].tolist() == [[0]]


def test_not_a_number_from_the_detector_is_the_servers_fault(logged: list[str]) -> None:
    model = _model("postprocess", SETTINGS.to_parameters())
    asked = DetectionRequest(texts=("cat",), image_hw=(40, 80), options=DetectionOptions())
    request = _request(
        LOGITS=np.full((1, 1, 16), np.nan, np.float32),
        BOXES_CXCYWH=np.zeros((1, 1, 4), np.float32),
        REQUEST=_texts(asked.to_bytes()),
    )
    (response,) = model.execute([request])
    assert response.error.code == "INTERNAL"
    assert "the detector answered NaN" in response.error.message


def _text_request(ids: np.ndarray) -> StandInRequest:
    return _request(INPUT_IDS=ids, POSITION_IDS=np.zeros_like(ids), PHRASE_IDS=np.zeros_like(ids))


def test_engine_model_answers_all_requests_of_a_call(repository: Path, logged: list[str]) -> None:
    model = _model("text_encoder", ENGINE_PARAMETERS, repository / "text_encoder")
    ids = np.arange(16, dtype=np.int32)[None]
    requests = [_text_request(ids * factor) for factor in (1, 2, 3)]
    for factor, response in enumerate(_executed(model, requests), start=1):
        assert response.outputs["TEXT_FEATURES"][..., 0].tolist() == (ids * factor).tolist()
    engine = {key: value for key, value in StandInMetricFamily.counted.items() if key[0].startswith("gdino_engine")}
    assert engine == {
        ("gdino_engine_inferences", "text_encoder"): 1,
        ("gdino_engine_rows", "text_encoder"): 3,
        ("gdino_engine_running", "text_encoder"): 0,
    }


def test_engine_model_refuses_what_is_wrong_and_answers_the_others(repository: Path, logged: list[str]) -> None:
    model = _model("text_encoder", ENGINE_PARAMETERS, repository / "text_encoder")
    ids = np.arange(16, dtype=np.int32)[None]
    longer = np.arange(17, dtype=np.int32)[None]
    good, bad, last = _executed(model, [_text_request(ids), _text_request(longer), _text_request(ids)])
    assert bad.error.code == "INVALID_ARG"
    assert "PHRASE_IDS has 17 tokens, the limit is 16" in bad.error.message
    for response in (good, last):
        assert response.outputs["TEXT_FEATURES"][..., 0].tolist() == ids.tolist()
    assert not logged
    assert StandInMetricFamily.counted["gdino_errors", "text_encoder", "INVALID_ARGUMENT"] == 1


def test_engine_model_that_fails_answers_with_an_error(repository: Path, logged: list[str]) -> None:
    model = _model("text_encoder", ENGINE_PARAMETERS, repository / "text_encoder")
    first, second = _executed(model, [_request(INPUT_IDS=np.zeros((1, 16), np.int32)) for _ in range(2)])
    assert (first.error.code, second.error.code) == ("INTERNAL", "INTERNAL")
    assert logged
    assert StandInMetricFamily.counted["gdino_errors", "text_encoder", "INTERNAL"] == 2
