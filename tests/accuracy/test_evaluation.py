"""Accuracy through a real server: the same as through PyTorch, and a kill costs only the answer in the making."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from evaluate import evaluate_model, load_checkpoint
from gdino_build.accuracy import evaluation
from gdino_build.accuracy.dataset import CocoDataset, load_coco
from gdino_build.accuracy.evaluation import ANSWERS_FILE_NAME, evaluate_profile
from gdino_build.accuracy.record import AccuracyRecord, graphs_sha256, read_records, write_record
from gdino_build.profile import Profile
from gdino_core.errors import ConfigError
from tests.accuracy.conftest import SCENES

pytestmark = pytest.mark.server
KILLED_AFTER = 2  # answers
TORN = b'{"image_id":3,"picture_sha256":"'

# What the killed run does; the pictures that latency is measured on are fewer, so that it comes to the others sooner.
_RUN = """
import sys
from pathlib import Path
from gdino_build.accuracy import evaluation
from gdino_build.accuracy.dataset import load_coco
from gdino_build.profile import load_profile
evaluation.LATENCY_PICTURES, evaluation.IN_FLIGHT = 1, 1
scenes, folder = map(Path, sys.argv[1:])
evaluation.evaluate_profile(load_profile("demo-cpu"), folder, load_coco(scenes / "annotations.json", scenes))
"""


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """What a killed run left, what the next one made of it, and its record."""

    before: bytes
    after: bytes
    record: AccuracyRecord


@pytest.fixture(scope="module")
def resumed(scenes_folder: Path, built_folder: Path, demo_profile: Profile) -> Iterator[Resumed]:
    path = built_folder / ANSWERS_FILE_NAME
    with subprocess.Popen([sys.executable, "-c", _RUN, str(scenes_folder), str(built_folder)]) as process:
        while process.poll() is None and _count_answers(path) < KILLED_AFTER:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    before = path.read_bytes()
    with path.open("ab") as file:
        file.write(TORN)
    dataset = load_coco(scenes_folder / "annotations.json", scenes_folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "LATENCY_PICTURES", 2)
        record = evaluate_profile(demo_profile, built_folder, dataset)
    yield Resumed(before=before, after=path.read_bytes(), record=record)


def _count_answers(path: Path) -> int:
    return path.read_bytes().count(b"\n") - 1 if path.is_file() else 0


def test_a_killed_run_goes_on_where_it_stopped(resumed: Resumed) -> None:
    before = resumed.before[: resumed.before.rindex(b"\n") + 1]  # the kill may have torn a line itself
    assert KILLED_AFTER <= before.count(b"\n") - 1 < SCENES, "the first run was not killed midway"
    assert resumed.after.startswith(before)
    rest = resumed.after.removeprefix(before).splitlines()
    assert len(rest) == SCENES - (before.count(b"\n") - 1)
    ids = [json.loads(line)["image_id"] for line in resumed.after.splitlines()[1:]]
    assert sorted(ids) == list(range(SCENES))


def test_accuracy_through_the_server_is_that_through_pytorch(resumed: Resumed, demo_profile: Profile) -> None:
    expected = evaluate_model(load_checkpoint(demo_profile.checkpoint), SCENES, show_progress=False)
    record = resumed.record
    found = [record.ap, record.ap50, record.ap75, record.ar]
    # A hundredth of a point: 1e-5 of the picture may move a box over an IoU threshold, and that would show as more.
    wanted = [100 * expected.ap, 100 * expected.ap50, 100 * expected.ap75, 100 * expected.ar]
    assert found == pytest.approx(wanted, abs=0.01)
    assert 60 < record.ap < 100


def test_the_record_tells_what_was_measured_and_of_which_graphs(
    resumed: Resumed, scenes: CocoDataset, built_folder: Path
) -> None:
    record = resumed.record
    assert (record.profile, record.precision, record.scenes) == ("demo-cpu", "fp32", SCENES)
    assert record.dataset_sha256 == scenes.sha256
    assert record.onnx_sha256 == graphs_sha256(built_folder / "onnx" / "fp32")
    assert record.through.startswith("Triton 2.51.0 over gRPC, OpenVINO 2026.")
    assert record.latency_ms is not None and record.latency_ms > 1
    assert record.peak_bytes is not None and record.peak_bytes > 200 * 2**20
    path = write_record(record, built_folder)
    assert [*read_records(path.parent.parent)] == [record]


def test_the_header_holds_both_engines_so_that_others_are_never_mixed_with_these(resumed: Resumed) -> None:
    header = json.loads(resumed.after.splitlines()[0])
    assert {"text_encoder/1/model.bin", "detector/1/model.bin", "preprocess/config.pbtxt"} <= set(header["repository"])
    assert len(header["annotations_sha256"]) == 64


def test_a_profile_that_is_not_built_is_refused_with_the_command(
    tmp_path: Path, scenes: CocoDataset, demo_profile: Profile
) -> None:
    with pytest.raises(ConfigError, match=r"manifest.json cannot be read.*\n  fix: build the repository: make"):
        evaluate_profile(demo_profile, tmp_path, scenes)
