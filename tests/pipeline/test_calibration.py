"""Ranges of INT8 are those of the numbers that were seen, found alike on every run, from training pictures alone."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from scipy.stats import entropy

from batches import EVALUATION_STREAM, TRAINING_STREAM
from coco import ANNOTATIONS, write_dataset
from gdino_build.accuracy.dataset import CocoDataset, load_coco
from gdino_build.parity import Array, Arrays
from gdino_build.precision.calibration import Histogram, choose_thresholds, count_magnitudes
from gdino_build.precision.calibration_data import draw_cases, find_thresholds, with_text_features
from gdino_build.precision.calibration_settings import METHODS, CalibrationSettings
from gdino_build.profile import load_profile
from gdino_core import contract
from gdino_core.errors import ConfigError, ExportError
from gdino_core.prompt import encode_prompt
from tests.pipeline.graphs import Builder

RNG = np.random.default_rng(0)
NORMAL = RNG.standard_normal(200_000, dtype=np.float32)
SETTINGS = load_profile("demo-cpu").preprocess


def counted(*pictures: Array) -> Histogram:
    histogram = Histogram()
    for values in pictures:
        histogram.add(values)
    return histogram


# histograms


@pytest.mark.parametrize("values", [NORMAL, RNG.random(50_000, dtype=np.float32) - 0.25, np.abs(NORMAL) ** 3])
def test_a_histogram_counts_as_numpy_does(values: Array) -> None:
    found = counted(values)
    edges = np.arange(len(found.counts) + 1) * found.width
    expected = np.histogram(np.abs(values).astype(np.float64), edges)[0]
    assert found.counts.sum() == values.size
    # A value on the edge of two bins may round into either.
    assert np.abs(found.counts.cumsum() - expected.cumsum()).max() <= 2


def test_pictures_add_up_whatever_their_range() -> None:
    parts = [NORMAL[:1000] * 0.1, NORMAL[1000:90_000], NORMAL[90_000:] * 3]
    found = counted(*parts)
    magnitudes = np.abs(np.concatenate(parts))
    assert found.counts.sum() == magnitudes.size
    assert found.largest == magnitudes.max()
    assert abs(found.threshold("percentile") - np.percentile(magnitudes, 99.99)) <= 2 * found.width


def test_a_first_picture_of_tiny_numbers_costs_no_memory_later() -> None:
    found = counted(NORMAL * np.float32(1e-6), NORMAL)
    assert len(found.counts) <= 1 << 16
    assert found.counts.sum() == 2 * NORMAL.size
    assert found.counts[0] >= NORMAL.size  # the tiny ones
    both = np.abs(np.concatenate((NORMAL * np.float32(1e-6), NORMAL)))
    assert abs(found.threshold("percentile") - np.percentile(both, 99.99)) <= 2 * found.width < 0.01


@pytest.mark.parametrize("smallest", [1e-44, 1e-40, 1e-37])
def test_numbers_at_the_end_of_fp32_are_counted(smallest: float) -> None:
    found = counted(np.float32([smallest, 0, smallest / 2]), np.float32([1.0, -2.0]))
    assert found.counts.sum() == 5
    assert found.largest == 2.0


@pytest.mark.parametrize("method", METHODS)
def test_an_activation_that_is_always_zero_has_no_range(method: str) -> None:
    assert counted(np.zeros(10, np.float32), np.zeros((2, 3), np.float32)).threshold(method) == 0.0
    assert counted(np.zeros(0, np.float32)).threshold(method) == 0.0


def test_zeros_before_the_first_number_are_not_forgotten() -> None:
    found = counted(np.zeros(10_000, np.float32), np.float32([1.0]))
    assert found.counts.sum() == 10_001
    assert found.threshold("percentile") < 0.01


# methods


@pytest.mark.parametrize("values", [NORMAL, -np.abs(NORMAL), RNG.random(9, dtype=np.float32), np.float32([3e38])])
def test_min_max_is_the_largest_magnitude_itself(values: Array) -> None:
    assert counted(values[: len(values) // 2], values[len(values) // 2 :]).threshold("min-max") == np.abs(values).max()


@pytest.mark.parametrize("values", [NORMAL, RNG.laplace(size=300_000).astype(np.float32), np.maximum(NORMAL, 0)])
def test_percentile_is_numpys_within_a_bin(values: Array) -> None:
    found = counted(values)
    assert abs(found.threshold("percentile") - np.percentile(np.abs(values), 99.99)) <= 2 * found.width
    assert found.threshold("percentile") < found.largest


def test_no_method_leaves_the_range_that_was_seen() -> None:
    for method in METHODS:
        assert 0 < counted(NORMAL[:20]).threshold(method) <= np.abs(NORMAL[:20]).max()


def test_entropy_clips_an_outlier() -> None:
    bulk = np.abs(NORMAL).max()
    found = counted(np.append(NORMAL, np.float32(100.0)))
    assert 0.5 * bulk < found.threshold("entropy") < 2 * bulk
    assert found.largest == 100.0


def test_entropy_keeps_all_of_a_uniform_distribution() -> None:
    found = counted(RNG.uniform(-1, 1, 500_000).astype(np.float32))
    assert found.threshold("entropy") > 0.98


def test_the_zeros_of_a_relu_do_not_move_the_threshold_of_entropy() -> None:
    positive = np.abs(NORMAL)
    with_zeros = np.concatenate((np.zeros(20 * NORMAL.size, np.float32), positive))
    assert counted(with_zeros).threshold("entropy") == counted(positive).threshold("entropy")
    assert counted(with_zeros).threshold("entropy") > 2  # 128 bins, where the search starts, would be 0.3


@pytest.mark.parametrize("values", [np.maximum(NORMAL, 0), RNG.laplace(size=300_000), RNG.standard_t(4, 100_000)])
def test_entropy_chooses_as_well_as_an_exhaustive_search(values: Array) -> None:
    found = counted(values.astype(np.float32))
    bins = found.counts.astype(np.float64)
    bins[0] = bins[1]  # zeros, as in NVIDIA's pytorch-quantization
    chosen = round(found.threshold("entropy") / found.width)
    divergences = {kept: divergence_of(bins, kept) for kept in {*range(128, len(bins) + 1, 5), len(bins), chosen}}
    assert divergences[chosen] <= 1.1 * min(divergences.values())
    assert divergences[chosen] < 0.7 * max(divergences[128], divergences[len(bins)])  # not any choice would do


def divergence_of(bins: Array, kept: int) -> float:
    """The KL divergence of a histogram and its first bins in 128 levels: from the pseudo-code of NVIDIA's talk."""
    reference = bins[:kept].copy()
    reference[-1] += bins[kept:].sum()
    candidate = np.full(kept, 1e-4)  # for a bin of clipped values alone
    for part in np.array_split(np.arange(kept), 128):
        filled = part[bins[part] != 0]
        if filled.size:
            candidate[filled] = bins[part].sum() / filled.size
    return float(entropy(reference, candidate))


# graphs


def two_products() -> onnx.ModelProto:
    build = Builder(["n", 4])
    first = build.add("MatMul", build.x, np.eye(4, dtype=np.float32) * 3)
    return build.done(build.add("MatMul", build.add("Sqrt", first), np.ones((4, 2), np.float32)))


def test_the_activations_before_weights_are_counted_over_all_pictures() -> None:
    x = np.float32([[1, 2, 3, 4]])
    found = count_magnitudes(two_products(), ["x", "Sqrt_1_output"], [{"x": x}, {"x": 3 * x}])
    assert found["x"].largest == 12.0
    assert found["x"].counts.sum() == found["Sqrt_1_output"].counts.sum() == 8


@pytest.mark.parametrize("method", METHODS)
def test_a_threshold_is_chosen_for_each_activation_before_weights_over_all_pictures(method: str) -> None:
    x = RNG.random((500, 4), dtype=np.float32)
    found = choose_thresholds(two_products(), [{"x": x}, {"x": 4 * x}], method)
    assert list(found) == ["x", "Sqrt_1_output"]
    assert 0.9 * 4 * x.max() < found["x"] <= 4 * x.max()
    assert 0.9 * (12 * x.max()) ** 0.5 < found["Sqrt_1_output"] <= (12 * x.max()) ** 0.5 * 1.000001


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [-1.0, np.inf])
def test_a_number_that_is_none_is_told_with_its_activation_and_picture(value: float, method: str) -> None:
    good, bad = np.ones((1, 4), np.float32), np.float32([[1, 1, 1, value]])
    name = "x" if np.isinf(value) else "Sqrt_1_output"  # the root of a negative number
    with pytest.raises(ExportError, match=f"{name} cannot be calibrated on picture 2 .*a value is ") as caught:
        choose_thresholds(two_products(), [{"x": good}, {"x": bad}], method)
    assert "fix: " in str(caught.value)


def test_min_max_without_a_histogram_is_the_largest_that_a_histogram_sees(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cases = [{"x": rng.standard_normal((5, 4)).astype(np.float32) ** 2 + 1} for _ in range(3)]
    found = choose_thresholds(two_products(), cases, "min-max")
    assert found == {name: one.largest for name, one in count_magnitudes(two_products(), list(found), cases).items()}


# pictures and prompts


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> CocoDataset:
    folder = tmp_path_factory.mktemp("training")
    return load_coco(write_dataset("training", 8, folder), folder)


def same(one: Arrays, other: Arrays) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


def test_the_seed_chooses_pictures_and_prompts(training: CocoDataset) -> None:
    first, again = (draw_cases(training, SETTINGS, 4, 0) for _ in range(2))
    other = draw_cases(training, SETTINGS, 4, 1)
    assert all(same(one, two) for one, two in zip(first, again, strict=True))
    assert not all(same(one, two) for one, two in zip(first, other, strict=True))


def test_no_picture_is_drawn_twice_and_a_small_data_set_is_used_whole(training: CocoDataset) -> None:
    cases = draw_cases(training, SETTINGS, 64, 0)
    assert len(cases) == 8
    assert len({case[contract.PIXELS].tobytes() for case in cases}) == 8


def test_every_second_prompt_asks_for_all_labels_and_the_others_for_some(training: CocoDataset) -> None:
    everything = encode_prompt(training.labels, SETTINGS.text_buckets).input_ids
    cases = draw_cases(training, SETTINGS, 8, 0)
    asks_all = [np.array_equal(case[contract.INPUT_IDS][0], everything) for case in cases]
    assert asks_all[::2] == [True] * 4
    assert not any(asks_all[1::2])
    assert len({case[contract.INPUT_IDS].shape for case in cases}) > 1  # of several text buckets


def test_more_labels_than_a_prompt_holds_are_cut_not_refused(training: CocoDataset) -> None:
    short = load_profile("demo-cpu").preprocess
    tight = type(short)(**{**vars(short), "text_buckets": (16,)})
    for case in draw_cases(training, tight, 4, 0):
        assert case[contract.INPUT_IDS].shape == (1, 16)
        assert len(np.unique(case[contract.PHRASE_IDS][case[contract.PHRASE_IDS] >= 0])) > 2


def test_a_label_that_no_prompt_holds_is_named(training: CocoDataset) -> None:
    short = load_profile("demo-cpu").preprocess
    tight = type(short)(**{**vars(short), "text_buckets": (4,)})
    with pytest.raises(ConfigError, match=f"the label '{training.labels[0]}' alone is longer than a prompt may be"):
        draw_cases(training, tight, 1, 0)


def test_the_demo_is_calibrated_on_training_scenes_and_judged_on_others(training: CocoDataset, tmp_path: Path) -> None:
    settings = load_profile("demo-cpu-int8").calibration
    assert settings is not None
    assert settings.images == settings.annotations.parent == Path("out/demo-scenes/training")
    assert TRAINING_STREAM != EVALUATION_STREAM
    held_out = json.loads(write_dataset("held-out", 8, tmp_path).read_text(encoding="utf-8"))
    drawn = {hashlib.sha256(picture.path.read_bytes()).hexdigest() for picture in training.pictures}
    assert drawn.isdisjoint(image["sha256"] for image in held_out["images"])
    written = json.loads((training.file.parent / ANNOTATIONS).read_text(encoding="utf-8"))
    assert drawn == {image["sha256"] for image in written["images"]}


def test_two_runs_give_the_same_thresholds_to_the_bit(onnx_folder: Path, training: CocoDataset) -> None:
    runs = [
        find_thresholds(onnx_folder, draw_cases(training, SETTINGS, 2, 0), method)
        for method in ("percentile", "percentile", "min-max")
    ]
    assert runs[0] == runs[1] != runs[2]
    for graph in (contract.MODEL_TEXT_ENCODER, contract.MODEL_DETECTOR):
        assert min(runs[0][graph].values()) > 0
        assert all(low <= runs[2][graph][name] for name, low in runs[0][graph].items())


def test_the_detector_is_given_what_the_text_encoder_answers(onnx_folder: Path, training: CocoDataset) -> None:
    model = onnx.load(onnx_folder / f"{contract.MODEL_TEXT_ENCODER}.onnx")
    [case] = draw_cases(training, SETTINGS, 1, 0)
    [found] = with_text_features(model, [case])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    expected = session.run([contract.TEXT_FEATURES], {name: case[name] for name in names})[0]
    np.testing.assert_array_equal(found[contract.TEXT_FEATURES], expected)
    assert same(case, found)


# settings


GOOD = {"images": Path("a"), "annotations": Path("b"), "pictures": 4, "method": "min-max", "seed": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "mean"}, r"\[calibration\] method is 'mean'\n  fix: choose one of min-max, percentile, entropy"),
        ({"pictures": 0}, r"\[calibration\] pictures is 0\n  fix: "),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, object], message: str) -> None:
    CalibrationSettings(**GOOD)
    with pytest.raises(ConfigError, match=message):
        CalibrationSettings(**GOOD | change)
