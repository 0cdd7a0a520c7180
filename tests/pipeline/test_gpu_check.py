"""The GPU check on a CPU: the same code with ONNX Runtime and PyTorch there, and all that needs no device."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gdino_build.golden import Golden, load_golden, save_golden
from gdino_build.gpu_check import check
from gdino_build.gpu_check.check import CheckOptions, run_gpu_check
from gdino_build.gpu_check.comparison import Ask, compare_with_golden, match_queries
from gdino_build.gpu_check.contenders import Place, find_contenders
from gdino_build.gpu_check.gpu import parse_gpu
from gdino_build.gpu_check.measurement import PASSES, measure
from gdino_build.gpu_check.onnxruntime_runner import OnnxRuntimeRunner
from gdino_build.gpu_check.process import Contender
from gdino_build.gpu_check.profile_fit import fit_to_profile
from gdino_build.gpu_check.tensorrt_runner import TORCH_TYPES
from gdino_build.model import GroundingDino
from gdino_build.parity import Arrays
from gdino_build.profile import Profile, load_profile
from gdino_build.tensorrt.flavour import find_flavour
from gdino_build.tensorrt.optimisation_profiles import Buckets, buckets_to_profiles
from gdino_build.tensorrt.plan import onnx_to_plan, plan_folder
from gdino_build.verify_report import TOLERANCE
from gdino_core.contract import BOXES_CXCYWH, LOGITS, PHRASE_IDS, PIXELS, POSITION_IDS
from gdino_core.errors import ConfigError, ExportError, ParityError
from tests.engines.graphs import write_small_detector
from tests.engines.settings import make_settings
from tests.pipeline.inputs import make_inputs

GOLDENS = Path("tests/goldens")
BUCKETS = Buckets(resolutions=((128, 256), (128, 192), (256, 128)), tokens=(16, 32), max_batch_size=2)
DETECTOR_AXES = {
    PIXELS: ("batch", 3, "height", "width"),
    POSITION_IDS: ("batch", "tokens"),
    PHRASE_IDS: ("batch", "tokens"),
}
# What a runner's process runs; prints where answers go, as libraries do, and fails at a batch of two.
SMALL_RUNNER = """
from gdino_build.gpu_check.worker import serve
class Small:
    version, can_force = "1", False
    def __init__(self): print("loading")
    def place(self, inputs): return inputs["PIXELS"]
    def run(self, placed):
        print("running")
        if len(placed) == 2: raise MemoryError("out of memory")
        if len(placed) == 3: raise SystemExit(7)
        return placed
    def fetch(self, outputs): return {}
serve(Small)
"""


@pytest.fixture(scope="module")
def golden() -> Golden:
    """Two pictures that fit the demo's buckets, with the weights of `demo_model`."""
    whole = load_golden(GOLDENS / "demo_random.npz")
    return replace(whole, cases=tuple(pair for pair in whole.cases if pair[0].name in ("small", "photo")))


@pytest.fixture(scope="module")
def ask(onnx_folder: Path) -> Ask:
    runner = OnnxRuntimeRunner(onnx_folder, "cpu")
    return lambda inputs: runner.fetch(runner.run(runner.place(inputs)))


def built_profile(out: Path, graphs: Path) -> Profile:
    """The demo in FP32 for a GPU, with its graphs where the pipeline would have put them."""
    file = out / "gpu-demo.toml"
    engine, preprocess = 'runtime = "tensorrt"', "max_prompts = 8"
    file.write_text(f'extends = "demo-cpu"\n[engine]\n{engine}\n[preprocess]\n{preprocess}\n', encoding="utf-8")
    (out / "gpu-demo" / "onnx").mkdir(parents=True)
    (out / "gpu-demo" / "onnx" / "fp32").symlink_to(graphs)
    return load_profile(str(file))


def place_of(out: Path, device: str, capability: int | None) -> Place:
    return Place(root=out, out=out, weights=out / "weights.safetensors", device=device, capability=capability)


def test_all_that_runs_on_a_cpu_is_compared_and_timed_and_what_does_not_is_named(
    onnx_folder: Path, demo_model: GroundingDino, golden: Golden, tmp_path: Path
) -> None:
    save_golden(replace(golden, cases=golden.cases[:1]), tmp_path / "goldens" / "demo.npz")
    options = CheckOptions(
        device="cpu", batches=(1, 2), rounds=1, goldens=tmp_path / "goldens", root=tmp_path, out=tmp_path
    )
    report = run_gpu_check([built_profile(tmp_path, onnx_folder)], demo_model, options)
    assert [(row.runner, row.precision, row.batch) for row in report.rows] == [
        (runner, precision, batch)
        for runner, precision in (("PyTorch", "fp32"), ("PyTorch", "fp16"), ("ONNX Runtime", "fp32"))
        for batch in (1, 2)
    ]
    for row in report.rows:
        assert len(row.seconds) == PASSES
        assert row.peak_bytes is not None and row.peak_bytes > 1 << 20
        assert row.compared is not None and row.compared.forced is not None and row.compared.cases == 1
        assert row.compared.passed is (True if row.precision == "fp32" else None)
        # FP16 is FP16: it differs by more than FP32 may, and by less than would be another answer.
        assert (row.compared.forced.max_abs_logit > TOLERANCE.logit) == (row.precision == "fp16")
        assert row.compared.forced.max_abs_box < 1e-2
    reasons = {(one.runner, one.precision): one.reason for one in report.absent}
    assert ".venv-reference is not there" in reasons["original", "fp32"]
    assert "tensorrt" in reasons["TensorRT", "fp32"]
    assert "on a GPU only" in reasons["TensorRT-RTX", "fp32"]
    written = json.loads((tmp_path / "gpu-check-cpu.json").read_text(encoding="utf-8"))
    assert [row["result"] for row in written["rows"]] == ["passed", "passed", "told", "told", "passed", "passed"]
    assert "| ONNX Runtime |" in (tmp_path / "gpu-check-cpu.md").read_text(encoding="utf-8")


def test_answers_that_are_not_the_originals_fail_the_check_and_the_report_is_written_all_the_same(
    onnx_folder: Path, demo_model: GroundingDino, golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # PyTorch on a CPU takes its time, and is in the test above.
    monkeypatch.setattr(check, "find_contenders", lambda *given: (find_contenders(*given)[0][-1:], []))
    case, answer = golden.cases[0]
    moved = replace(golden, cases=((case, replace(answer, boxes=answer.boxes + np.float32(1e-3))),))
    save_golden(moved, tmp_path / "goldens" / "demo.npz")
    options = CheckOptions(
        device="cpu", batches=(1,), rounds=1, goldens=tmp_path / "goldens", root=tmp_path, out=tmp_path
    )
    with pytest.raises(ParityError, match="ONNX Runtime fp32, batch 1 differs"):
        run_gpu_check([built_profile(tmp_path, onnx_folder)], demo_model, options)
    assert "differs" in (tmp_path / "gpu-check-cpu.md").read_text(encoding="utf-8")


def test_without_a_gpu_the_command_says_what_of_everything_is_missing(
    demo_model: GroundingDino, onnx_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    with pytest.raises(ConfigError) as raised:
        run_gpu_check([built_profile(tmp_path, onnx_folder)], demo_model, CheckOptions(root=tmp_path, out=tmp_path))
    message = str(raised.value)
    assert "no NVIDIA GPU can be used here: nvidia-smi is not installed" in message
    assert "TensorRT-RTX fp32: tensorrt-rtx 1.7.1.116 is installed, and runs on a GPU only" in message
    if torch.version.cuda is None:
        assert "PyTorch fp16: torch 2.13.0+cpu is built without CUDA" in message
    assert "fix: run it on a machine with an NVIDIA GPU" in message
    assert not list(tmp_path.glob("gpu-check*"))  # the result of another machine would stay


def test_a_plan_that_the_gpu_cannot_load_is_named_with_the_command_that_rebuilds_it(
    onnx_folder: Path, tmp_path: Path
) -> None:
    profile = built_profile(tmp_path, onnx_folder)

    def reason(capability: int) -> str:
        _, absent = find_contenders([profile], place_of(tmp_path, "cuda", capability))
        [found] = [one for one in absent if one.runner == "TensorRT-RTX"]
        return f"{found.reason} {found.fix}"

    assert "make engines PROFILE=gpu-demo SM=89" in reason(89)
    folder, graph = plan_folder(tmp_path / "gpu-demo" / "engine", 89), tmp_path / "small.onnx"
    write_small_detector(graph)
    for name in ("text_encoder", "detector"):
        settings = make_settings(tmp_path, capability=80)
        manifest = onnx_to_plan(graph, folder / f"{name}.plan", settings, find_flavour("tensorrt-rtx"))
    assert "compiled for SM=80, the GPU here has SM=89" in reason(89)
    folder.rename(plan_folder(tmp_path / "gpu-demo" / "engine", 80))
    if torch.version.cuda is None:
        assert "is built without CUDA" in reason(80)  # the plan fits; nothing could hold its buffers
    for tensor in (*manifest.inputs.values(), *manifest.outputs.values()):
        assert tensor.type_name in TORCH_TYPES


def test_a_runner_that_fails_leaves_a_row_that_says_why_and_spoils_no_other(tmp_path: Path) -> None:
    small = Contender(runner="small", precision="fp16", command=[sys.executable, "-c", SMALL_RUNNER], environment={})
    dead = replace(small, runner="dead", command=[sys.executable, "-c", "raise SystemExit(3)"])
    batches = {batch: {PIXELS: np.zeros(batch)} for batch in (1, 2, 3)}
    rows = measure([dead, small], batches, None, open_meter=lambda: lambda _: 5, rounds=2, log=tmp_path / "log")
    assert [row.failure for row in rows[:3]] == [
        f"dead fp16: its process ended with exit code 3\n  fix: what it printed is in {tmp_path / 'log'}"
    ] * 3
    one, two, three = rows[3:]
    assert (len(one.seconds), one.peak_bytes, one.failure) == (2 * PASSES, 5, "")
    assert "MemoryError: out of memory" in two.failure
    assert "its process ended with exit code 7" in three.failure
    assert "loading" in (tmp_path / "log").read_text(encoding="utf-8")


def test_answers_of_the_same_weights_are_found_and_equal_to_rounding(golden: Golden, ask: Ask) -> None:
    found = compare_with_golden(golden, ask, batch=2, precision="fp32", can_force=True)
    assert found.passed and found.forced is not None
    assert (found.matched.found, found.matched.queries) == (2 * 2 * 60, 2 * 2 * 60)
    assert 0 < found.matched.median_box < found.forced.max_abs_box < TOLERANCE.box


@pytest.mark.parametrize(("can_force", "step"), [(True, 2e-5), (False, 2e-2)])
def test_one_wrong_picture_of_a_batch_is_seen(golden: Golden, ask: Ask, can_force: bool, step: float) -> None:
    def spoiled(inputs: Arrays) -> Arrays:
        outputs = dict(ask(inputs))
        outputs[BOXES_CXCYWH][1, :, 2] += step
        return outputs

    found = compare_with_golden(golden, spoiled, batch=2, precision="fp32", can_force=can_force)
    assert found.passed is False


def test_queries_are_matched_one_to_one_in_any_order(golden: Golden) -> None:
    _, answer = golden.cases[0]
    order = np.random.default_rng(0).permutation(len(answer.boxes))
    logits, boxes = answer.logits[order], answer.boxes[order]
    assert len(match_queries(answer, logits, boxes)) == 60
    assert match_queries(answer, logits, boxes).max() == 0
    same = replace(answer, logits=np.repeat(logits[:1], 60, axis=0), boxes=np.repeat(boxes[:1], 60, axis=0))
    assert len(match_queries(same, same.logits[:5], same.boxes[:5])) == 5
    boxes[3] = np.nan
    assert len(match_queries(answer, logits, boxes)) == 59


def test_a_batch_that_is_padded_to_a_profile_gets_the_same_answers(ask: Ask) -> None:
    inputs = make_inputs((96, 160), ((96, 160), "red circle . blue star ."), ((80, 140), "green square ."), tokens=10)
    profile, fitted = fit_to_profile(inputs, buckets_to_profiles(DETECTOR_AXES, BUCKETS))
    assert profile == 1  # 128 x 192, the smallest that holds it, though not the first
    assert fitted[PIXELS].shape == (2, 3, 128, 192) and fitted[PHRASE_IDS].shape == (2, 16)
    assert all(len(set(row[8:])) == 8 for row in fitted[PHRASE_IDS])  # padding never attends to padding
    expected, found = ask(inputs), ask(fitted)
    real = inputs[PHRASE_IDS] >= 0
    for index in range(2):
        logits = found[LOGITS][index][:, :10][:, real[index]]
        np.testing.assert_allclose(logits, expected[LOGITS][index][:, real[index]], atol=1e-4)
        np.testing.assert_allclose(found[BOXES_CXCYWH][index], expected[BOXES_CXCYWH][index], atol=1e-5)


@pytest.mark.parametrize(("hw", "pictures", "tokens"), [((160, 288), 1, 8), ((128, 128), 3, 8), ((128, 128), 1, 40)])
def test_a_batch_that_no_profile_takes_is_refused(hw: tuple[int, int], pictures: int, tokens: int) -> None:
    inputs = make_inputs(hw, *[(hw, "red circle .")] * pictures, tokens=tokens)
    with pytest.raises(ExportError, match="fits no profile"):
        fit_to_profile(inputs, buckets_to_profiles(DETECTOR_AXES, BUCKETS))


def test_the_gpu_is_what_nvidia_smi_says() -> None:
    gpu = parse_gpu("NVIDIA H100 80GB HBM3, 550.54.15, 9.0, 81559, 412\n")
    assert (gpu.name, gpu.driver, gpu.capability) == ("NVIDIA H100 80GB HBM3", "550.54.15", 90)
    assert (gpu.memory_bytes, gpu.used_bytes) == (81559 * 2**20, 412 * 2**20)
    with pytest.raises(ConfigError, match="nvidia-smi answers"):
        parse_gpu("NVIDIA A100, 550.54.15, 8.0, [N/A], [N/A]")
