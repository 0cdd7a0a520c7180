"""All precisions side by side: FP32 through the server, FP16 emulated, the original in its own environment."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from coco import draw_scene
from evaluate import detect_labels, evaluate_model, load_checkpoint
from gdino_build.accuracy import evaluation
from gdino_build.accuracy.comparison import Variant, compare_precisions
from gdino_build.accuracy.dataset import CocoDataset, load_coco
from gdino_build.accuracy.emulated import emulating
from gdino_build.accuracy.original import Original, clip_results, evaluate_original, original_running
from gdino_build.accuracy.record import read_records
from gdino_build.precision.lowering import lower_precision
from gdino_build.profile import Profile
from gdino_core.errors import ConfigError
from tests.accuracy.conftest import BUILT, SCENES

ENVIRONMENT = Path(".venv-reference")


@pytest.fixture(scope="module")
def fp16_graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both demo graphs with all that can be in FP16."""
    folder = tmp_path_factory.mktemp("fp16")
    for name in ("text_encoder", "detector"):
        graph = gs.import_onnx(onnx.load(BUILT / "onnx" / "fp32" / f"{name}.onnx"))
        lower_precision(graph, "fp16", lambda node: True)
        onnx.save(gs.export_onnx(graph), folder / f"{name}.onnx")
    return folder


@pytest.fixture
def variants(built_folder: Path, fp16_graphs: Path, demo_profile: Profile) -> tuple[Variant, Variant]:
    fp16 = replace(demo_profile, name="demo-cpu-fp16", precision="fp16")
    return (
        Variant(profile=demo_profile, folder=built_folder, graphs=built_folder / "onnx" / "fp32"),
        Variant(profile=fp16, folder=built_folder.parent / "demo-cpu-fp16", graphs=fp16_graphs),
    )


def test_graphs_asked_without_a_server_answer_as_pytorch_does(scenes: CocoDataset, demo_profile: Profile) -> None:
    # FP32 graphs have nothing to emulate: what differs then is the way to ask.
    ask = emulating(BUILT / "onnx" / "fp32", scenes.labels, demo_profile.preprocess)
    model = load_checkpoint(demo_profile.checkpoint)
    for index, picture in enumerate(scenes.pictures[:2]):
        found, expected = ask(picture.path.read_bytes()), detect_labels(model, draw_scene("held-out", index))
        assert found.image_hw == picture.image_hw
        np.testing.assert_array_equal(found.label_index[:20], expected.label_index[:20])
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
        np.testing.assert_allclose(found.boxes_xyxy[:20], expected.boxes_xyxy[:20], atol=0.05)


@pytest.mark.server
def test_each_precision_has_its_row_its_record_and_its_way(
    variants: tuple[Variant, Variant], scenes: CocoDataset, built_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "LATENCY_PICTURES", 2)
    table = compare_precisions(variants, None, scenes)
    fp32, fp16 = table.rows
    assert (fp32.measured.precision, fp16.measured.precision, table.scenes) == ("fp32", "fp16", SCENES)
    assert fp32.measured.through.startswith("Triton")
    assert fp16.measured.through.startswith("emulation in ONNX Runtime")
    assert fp32.measured.latency_ms and fp32.measured.peak_bytes
    assert (fp16.measured.latency_ms, fp16.measured.peak_bytes) == (None, None)
    assert abs(fp16.ap_loss or 0.0) < 3 and fp16.measured.ap != fp32.measured.ap
    assert fp16.size_ratio is not None and 0.48 < fp16.size_ratio < 0.55
    records = {record.profile: record for record in read_records(built_folder.parent)}
    assert {name: record.ap for name, record in records.items()} == {
        "demo-cpu": fp32.measured.ap,
        "demo-cpu-fp16": fp16.measured.ap,
    }


def test_a_repository_of_other_graphs_is_refused_before_anything_is_measured(
    variants: tuple[Variant, Variant], scenes: CocoDataset, fp16_graphs: Path
) -> None:
    with pytest.raises(ConfigError, match=r"was not built from the graphs in .*\n  fix: make repository PROFILE=demo"):
        compare_precisions([replace(variants[0], graphs=fp16_graphs)], None, scenes)


def test_two_profiles_of_one_precision_are_refused(variants: tuple[Variant, Variant], scenes: CocoDataset) -> None:
    with pytest.raises(ConfigError, match="several profiles are fp32"):
        compare_precisions([variants[0], variants[0]], None, scenes)


# the original


@pytest.fixture
def original(scenes_folder: Path, tmp_path: Path, demo_profile: Profile) -> Original:
    return Original(
        root=Path.cwd(),
        environment=ENVIRONMENT,
        model="demo",
        weights=demo_profile.checkpoint,
        images=scenes_folder,
        out=tmp_path,
    )


def test_boxes_of_the_original_are_cut_off_at_the_border_of_their_picture(scenes: CocoDataset) -> None:
    height, width = scenes.pictures[1].image_hw
    image_id = scenes.pictures[1].image_id
    results = [{"image_id": image_id, "bbox": box} for box in ([-5, -9, 20, 30], [5, 6, width, 7], [1, 2, 3, height])]
    boxes = [result["bbox"] for result in clip_results(results, scenes)]
    assert boxes == [[0, 0, 15, 21], [5, 6, width - 5, 7], [1, 2, 3, height - 2]]


def test_a_missing_environment_of_the_original_is_named_before_anything_is_measured(
    original: Original, variants: tuple[Variant, Variant], scenes: CocoDataset
) -> None:
    with pytest.raises(ConfigError, match=r"nowhere is not there\n  fix: .*make_environment.sh"):
        compare_precisions(variants, replace(original, environment=Path("nowhere")), scenes)


@pytest.mark.full
@pytest.mark.skipif(not (ENVIRONMENT / ".ready").is_file(), reason="make goldens makes the original's environment")
def test_the_original_scores_as_our_module_does(
    original: Original, scenes: CocoDataset, scenes_folder: Path, demo_profile: Profile
) -> None:
    found = evaluate_original(original, scenes)
    model = load_checkpoint(demo_profile.checkpoint)
    for index, line in enumerate((original.out / "answers.jsonl").read_text(encoding="utf-8").splitlines()[1:]):
        expected = detect_labels(model, draw_scene("held-out", index))
        answer = json.loads(line)
        assert answer["label_index"][:5] == expected.label_index[:5].tolist()
        np.testing.assert_allclose(answer["scores"][:5], expected.scores[:5], atol=1e-4)
    expected_ap = evaluate_model(model, SCENES, show_progress=False).ap
    assert found.clipped.ap == pytest.approx(expected_ap, abs=1e-4)  # the server clips boxes to the picture
    ours = sum(4 * value.numel() for value in model.parameters())
    assert ours <= found.parameter_bytes < 1.01 * ours  # it has BERT's pooler, which nothing reads
    few = load_coco(scenes.file, scenes_folder, limit=1)
    with original_running(original, few) as process:
        process(few.pictures[0].path)
        assert process.peak_bytes() > 200 * 2**20
