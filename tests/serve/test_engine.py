import hashlib
from pathlib import Path

import numpy as np
import pytest

from gdino_build.engine import EngineTensor, engine_interface, onnx_to_openvino, read_record
from gdino_core.errors import ConfigError, ExportError, ServerError
from gdino_core.openvino_engine import OpenVinoEngine, OpenVinoSettings
from tests.serve.standin import TEXT_DIM, write_text_encoder


def _ids(batch: int, tokens: int = 4) -> dict[str, np.ndarray]:
    ids = np.arange(batch * tokens, dtype=np.int32).reshape(batch, tokens)
    return {"INPUT_IDS": ids, "POSITION_IDS": np.zeros_like(ids), "PHRASE_IDS": np.zeros_like(ids)}


def test_engine_has_the_names_types_and_open_sizes_of_its_graph(engines: Path) -> None:
    interface = engine_interface(engines / "detector.xml")
    assert interface.inputs["PIXELS"] == EngineTensor(type_name="u8", dims=(3, -1, -1))
    assert interface.inputs["TEXT_FEATURES"] == EngineTensor(type_name="f32", dims=(-1, TEXT_DIM))
    assert interface.outputs.keys() == {"LOGITS", "BOXES_CXCYWH"}


def test_record_tells_which_graph_the_engine_was_made_from(engines: Path) -> None:
    graph = (engines / "onnx" / "detector.onnx").read_bytes()
    assert read_record(engines / "detector.xml").onnx_sha256 == hashlib.sha256(graph).hexdigest()


def test_no_partial_engine_is_left_when_the_graph_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "damaged.onnx").write_bytes(b"\x08\x09 this is no graph")
    with pytest.raises(ExportError, match=r"cannot read .*damaged\.onnx"):
        onnx_to_openvino(tmp_path / "damaged.onnx", tmp_path / "engine" / "damaged.xml")
    assert not list(tmp_path.glob("engine/*"))


def test_missing_graph_is_told_with_the_stage_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"does not exist\n  fix: run the stages before this one"):
        onnx_to_openvino(tmp_path / "none.onnx", tmp_path / "none.xml")


def test_missing_record_is_told_with_the_stage_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"detector\.json cannot be read: .*\n  fix: run gdino-build engine"):
        read_record(tmp_path / "detector.xml")


def test_weights_stay_fp32(tmp_path: Path) -> None:
    write_text_encoder(tmp_path / "text.onnx")
    onnx_to_openvino(tmp_path / "text.onnx", tmp_path / "text.xml")
    assert 'element_type="f16"' not in (tmp_path / "text.xml").read_text()


@pytest.mark.parametrize("streams", [1, 2])
def test_requests_run_together_answer_as_each_alone(engines: Path, streams: int) -> None:
    settings = OpenVinoSettings(threads=2, streams=streams, max_batch_size=2)
    engine = OpenVinoEngine(engines / "text_encoder.xml", settings)
    requests = [_ids(1), _ids(3), _ids(2, tokens=6), _ids(2), _ids(5, tokens=6)]
    answers = dict(engine.infer_batches(engine.plan(requests), requests))
    assert sorted(answers) == list(range(len(requests)))
    for place, request in enumerate(requests):
        outputs = answers[place]
        assert not isinstance(outputs, Exception)
        np.testing.assert_array_equal(outputs["TEXT_FEATURES"], engine.infer(request)["TEXT_FEATURES"])


@pytest.mark.parametrize("streams", [1, 2])
def test_a_batch_that_fails_spoils_no_other(engines: Path, streams: int) -> None:
    engine = OpenVinoEngine(engines / "text_encoder.xml", OpenVinoSettings(streams=streams, max_batch_size=1))
    bad = {**_ids(2), "PHRASE_IDS": np.zeros((2, 3), np.int32)}  # fails in both of its batches
    requests = [_ids(1), bad, _ids(2, tokens=6)]
    outcomes = list(engine.infer_batches(engine.plan(requests), requests))
    assert sorted(place for place, _ in outcomes) == [0, 1, 2]
    assert [place for place, outcome in outcomes if isinstance(outcome, Exception)] == [1]


def test_answers_keep_their_values_when_the_engine_runs_again(engines: Path) -> None:
    engine = OpenVinoEngine(engines / "text_encoder.xml", OpenVinoSettings(threads=1))
    first = engine.infer(_ids(1))["TEXT_FEATURES"]
    kept = first.copy()
    engine.infer({name: value + 7 for name, value in _ids(1).items()})
    np.testing.assert_array_equal(first, kept)


def test_fp32_is_computed_in_fp32_on_processors_that_prefer_bf16(engines: Path) -> None:
    engine = OpenVinoEngine(engines / "text_encoder.xml", OpenVinoSettings(threads=1))
    odd = {name: np.full((1, 4), 2**20 + 1, np.int32) for name in _ids(1)}
    assert engine.infer(odd | {"POSITION_IDS": np.zeros((1, 4), np.int32)})["TEXT_FEATURES"].max() == 2**20 + 1


def test_damaged_engine_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text("<net>")
    with pytest.raises(ServerError) as caught:
        OpenVinoEngine(tmp_path / "model.xml", OpenVinoSettings())
    assert "\n" not in caught.value.message


def test_settings_travel_through_parameters() -> None:
    settings = OpenVinoSettings(threads=3, inference_precision="bf16", streams=2, max_batch_size=4)
    assert OpenVinoSettings.from_parameters(settings.to_parameters()) == settings


@pytest.mark.parametrize(
    ("allowed", "processors", "threads"),
    [({0, 1, 2, 3}, 4, None), ({0, 1, 2, 3}, 2, 2)],
)
def test_threads_are_as_many_as_the_container_gets_the_time_of(
    monkeypatch: pytest.MonkeyPatch, allowed: set[int], processors: int, threads: int | None
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: allowed)
    monkeypatch.setattr("gdino_core.openvino_engine.count_processors", lambda: processors)
    settings = OpenVinoSettings(streams=0)
    assert settings.streams_here() == processors
    assert settings.to_properties().get("INFERENCE_NUM_THREADS") == threads
    assert OpenVinoSettings(threads=3).to_properties()["INFERENCE_NUM_THREADS"] == 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"openvino_streams": None}, "config.pbtxt lacks openvino_threads"),
        ({"openvino_threads": "many"}, "lacks openvino_threads, .* .numbers"),
        ({"openvino_threads": "-1"}, "openvino_threads is -1"),
        ({"openvino_streams": "-1"}, "openvino_streams is -1"),
        ({"openvino_max_batch_size": "0"}, "openvino_max_batch_size is 0"),
        ({"openvino_inference_precision": "int3"}, "openvino_inference_precision is 'int3'"),
    ],
)
def test_settings_that_are_wrong_are_named(wrong: dict[str, str | None], message: str) -> None:
    given = OpenVinoSettings().to_parameters() | wrong
    parameters = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        OpenVinoSettings.from_parameters(parameters)
