"""Profiles are read strictly: what is wrong in one is named, with what to write instead."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gdino_build.model import ARCHITECTURES, DEMO, SWINB_COGCOOR, SWINT_OGC
from gdino_build.precision.calibration_settings import CalibrationSettings
from gdino_build.profile import Profile, load_profile, profile_names
from gdino_core.errors import ConfigError

GOLDENS = Path(__file__).parents[1] / "goldens"
GOOD = """
[model]
architecture = "demo"
checkpoint = "somewhere/weights.pth"

[engine]
runtime = "openvino"
precision = "fp32"
threads = 2
max_batch_size = 4

[preprocess]
short_side = 160
long_side = 288
resolution_buckets = [[160, 576], [576, 160]]
text_buckets = [16, 80]
max_image_bytes = 1000
max_image_pixels = 2000

[verify]
sizes = [[160, 288]]
"""


def load(tmp_path: Path, text: str) -> Profile:
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    return load_profile(str(tmp_path / "mine.toml"))


def test_the_profiles_that_the_makefile_names_are_shipped() -> None:
    assert set(profile_names()) >= {"demo-cpu", "swint-cpu", "swinb-cpu"}


@pytest.mark.parametrize("name", profile_names())
def test_every_shipped_profile_loads(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.architecture in ARCHITECTURES.values()
    assert not profile.checkpoint.is_absolute()
    largest = max(height * width for height, width in profile.preprocess.resolution_buckets)
    assert all(height * width <= largest for height, width in profile.verify_sizes)


def test_the_demo_prompt_of_all_24_labels_fits_a_bucket_of_the_demo_profile() -> None:
    assert 80 in load_profile("demo-cpu").preprocess.text_buckets


def test_the_official_models_resize_as_the_original() -> None:
    for name in ("swint-cpu", "swinb-cpu"):
        preprocess = load_profile(name).preprocess
        assert (preprocess.short_side, preprocess.long_side, max(preprocess.text_buckets)) == (800, 1333, 256)


def test_a_profile_of_ones_own_is_read_from_its_path(tmp_path: Path) -> None:
    profile = load(tmp_path, GOOD)
    assert profile.name == "mine"
    assert profile.architecture is DEMO
    assert profile.checkpoint == Path("somewhere/weights.pth")
    assert (profile.runtime, profile.precision, profile.threads, profile.max_batch_size) == ("openvino", "fp32", 2, 4)
    assert profile.preprocess.resolution_buckets == ((160, 576), (576, 160))
    assert profile.preprocess.text_buckets == (16, 80)
    assert profile.verify_sizes == ((160, 288),)


def test_a_configuration_file_of_the_original_takes_the_place_of_an_architecture(tmp_path: Path) -> None:
    options = json.loads((GOLDENS / "original_configs.json").read_text(encoding="utf-8"))["cfg_odvg.py"]
    config = tmp_path / "cfg_odvg.py"
    config.write_text("".join(f"{name} = {value!r}\n" for name, value in options.items()), encoding="utf-8")
    text = GOOD.replace('architecture = "demo"', f"config = '{config}'")
    assert load(tmp_path, text).architecture is SWINT_OGC
    config.write_text(config.read_text(encoding="utf-8") + "num_queries = 300\n", encoding="utf-8")
    assert load(tmp_path, text).architecture == replace(SWINT_OGC, name="cfg_odvg", num_queries=300)
    config.write_text(config.read_text(encoding="utf-8") + "pre_norm = True\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cfg_odvg\.py: pre_norm is True"):
        load(tmp_path, text)


@pytest.mark.parametrize("name", ["swin-t", "no/such/file.toml", ""])
def test_an_unknown_profile_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match="there is no profile") as caught:
        load_profile(name)
    assert ", ".join(profile_names()) in str(caught.value)


@pytest.mark.parametrize("text", ["[model", "\ufeff[model]\nx == 1"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"mine\.toml is not TOML"):
        load(tmp_path, text)


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"mine\.toml is not TOML"):
        load_profile(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ("threads = 2", "threads = 2\nthread = 3", r"\[engine\] has the unknown key thread"),
        ("threads = 2", "", r"\[engine\] lacks threads"),
        ("threads = 2", 'threads = "2"', r"\[engine\] threads is '2'"),
        ("threads = 2", "threads = true", r"\[engine\] threads is True"),
        ("threads = 2", "threads = -1", r"\[engine\] threads is -1"),
        ("threads = 2", "threads = 2\nstreams = -1", r"\[engine\] streams is -1"),
        ("threads = 2", "threads = 2\ncompiled_operator = 0", r"\[engine\] compiled_operator is 0"),
        ("[verify]", "[serving]\nmax_queue_size = -1\n[verify]", r"\[serving\] max_queue_size is -1"),
        ("[verify]", "[serving]\nqueue_timeout_ms = 0\n[verify]", r"\[serving\] queue_timeout_ms is 0"),
        ("[verify]", "[serving]\nbatches_at_once = 0\n[verify]", r"\[serving\] batches_at_once is 0"),
        ("[verify]", "[serving]\nwarm_up = 1\n[verify]", r"\[serving\] warm_up is 1"),
        ("[verify]", "[serving]\nqueue = 1\n[verify]", r"\[serving\] has the unknown key queue"),
        ("max_batch_size = 4", "max_batch_size = 0", r"\[engine\] max_batch_size is 0"),
        ("max_batch_size = 4", "max_batch_size = 65", r"\[engine\] max_batch_size is 65"),
        ('runtime = "openvino"', 'runtime = "onnx"', r"\[engine\] runtime is 'onnx'"),
        ('precision = "fp32"', 'precision = "fp12"', r"\[engine\] precision is 'fp12'"),
        ('architecture = "demo"', 'architecture = "swin"', r"\[model\] architecture is 'swin'"),
        ('architecture = "demo"', "", r"\[model\] lacks architecture"),
        ('architecture = "demo"', 'architecture = "demo"\nconfig = "a.py"', r"\[model\] has both architecture and"),
        ('architecture = "demo"', "config = 3", r"\[model\] config is 3"),
        ('architecture = "demo"', 'config = "no-such.py"', r"configuration no-such\.py cannot be read: No such file"),
        ("[verify]\nsizes = [[160, 288]]", "", r"lacks the section \[verify\]"),
        ("[verify]", "[extra]\nx = 1\n[verify]", r"unknown section \[extra\]"),
        ("sizes = [[160, 288]]", "sizes = [[160, 280]]", r"\[verify\] size 160x280 is not made of multiples of 32"),
        ("sizes = [[160, 288]]", "sizes = [[0, 288]]", r"\[verify\] size 0x288 is not made of multiples of 32"),
        ("sizes = [[160, 288]]", "sizes = []", r"\[verify\] sizes is empty"),
        ("sizes = [[160, 288]]", "sizes = [160, 288]", r"\[verify\] sizes holds 160"),
        ("[[160, 576], [576, 160]]", "[[160, 288, 3]]", r"\[preprocess\] resolution_buckets holds \[160, 288, 3\]"),
        ("[[160, 576], [576, 160]]", "[[160, 576]]", "no resolution bucket holds a .* 288x160"),
        ("[[160, 576], [576, 160]]", "[[160, 300], [576, 160]]", "bucket 160x300 is not made of multiples of 32"),
        ("text_buckets = [16, 80]", "text_buckets = [80, 16]", r"text_buckets \[80, 16\] do not rise"),
        ("text_buckets = [16, 80]", 'text_buckets = ["16"]', r"\[preprocess\] text_buckets holds '16'"),
        ("text_buckets = [16, 80]", "text_buckets = [16, 300]", r"text_buckets \[16, 300\] leave the range"),
        ("short_side = 160", "short_side = 160.0", r"\[preprocess\] short_side is 160\.0"),
    ],
)
def test_what_is_wrong_in_a_profile_is_named_and_how_to_mend_it(
    tmp_path: Path, good: str, bad: str, message: str
) -> None:
    assert good in GOOD
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, GOOD.replace(good, bad))
    assert "\n  fix: " in str(caught.value)


# profiles that extend others


def write(tmp_path: Path, name: str, text: str) -> str:
    path = tmp_path / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_profile_that_extends_another_has_its_tables_but_for_the_keys_it_writes(tmp_path: Path) -> None:
    base = load(tmp_path, GOOD)
    mine = write(
        tmp_path, "child", f"extends = '{tmp_path / 'mine.toml'}'\n[engine]\nthreads = 1\nprecision = 'bf16'\n"
    )
    assert load_profile(mine) == replace(base, name="child", threads=1, precision="bf16")


def test_extending_goes_on_through_a_chain_and_the_last_word_counts(tmp_path: Path) -> None:
    first = write(tmp_path, "first", GOOD)
    second = write(tmp_path, "second", f"extends = '{first}'\n[engine]\nthreads = 3\nmax_batch_size = 2\n")
    third = write(tmp_path, "third", f"extends = '{second}'\n[engine]\nthreads = 5\n[preprocess]\nshort_side = 64\n")
    found = load_profile(third)
    assert (found.threads, found.max_batch_size, found.precision) == (5, 2, "fp32")
    assert (found.preprocess.short_side, found.preprocess.long_side) == (64, 288)


def test_a_model_of_its_own_takes_the_place_of_the_whole_table(tmp_path: Path) -> None:
    options = json.loads((GOLDENS / "original_configs.json").read_text(encoding="utf-8"))["cfg_odvg.py"]
    config = tmp_path / "cfg_odvg.py"
    config.write_text("".join(f"{name} = {value!r}\n" for name, value in options.items()), encoding="utf-8")
    base = write(tmp_path, "base", GOOD)
    # Merged, it would have both architecture and config, and be refused.
    child = write(tmp_path, "child", f"extends = '{base}'\n[model]\nconfig = '{config}'\ncheckpoint = 'mine.pth'\n")
    assert load_profile(child).architecture is SWINT_OGC
    lacking = write(tmp_path, "lacking", f"extends = '{base}'\n[model]\narchitecture = 'swinb-cogcoor'\n")
    with pytest.raises(ConfigError, match=r"\[model\] lacks checkpoint"):
        load_profile(lacking)
    both = f"extends = '{base}'\n[model]\narchitecture = 'swinb-cogcoor'\ncheckpoint = 'b.pth'\n"
    assert load_profile(write(tmp_path, "both", both)).architecture is SWINB_COGCOOR


@pytest.mark.parametrize("length", [1, 2, 3])
def test_profiles_that_extend_each_other_in_a_circle_are_refused(tmp_path: Path, length: int) -> None:
    paths = [tmp_path / f"{index}.toml" for index in range(length)]
    for path, following in zip(paths, [*paths[1:], paths[0]], strict=True):
        path.write_text(f"extends = '{following}'\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"0\.toml extends itself\n  fix: let it extend another"):
        load_profile(str(paths[0]))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ('extends = "swin-t"', "there is no profile swin-t"),
        ("extends = 3", "mine.toml extends 3"),
        ('extends = ["demo-cpu"]', r"mine.toml extends \['demo-cpu'\]"),
        ('extends = "demo-cpu"\n[engine]\nthread = 1', r"\[engine\] has the unknown key thread"),
        ('extends = "demo-cpu"\n[extra]\nx = 1', r"unknown section \[extra\]"),
        ('extends = "demo-cpu"\nengine = 3', r"lacks the section \[engine\]"),
    ],
)
def test_what_is_wrong_in_an_extending_profile_is_named(tmp_path: Path, head: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, head)
    assert "\n  fix: " in str(caught.value)


def test_a_base_whose_table_is_none_is_refused_unless_the_table_is_written_anew(tmp_path: Path) -> None:
    verify = "[verify]\nsizes = [[160, 288]]\n"
    base = write(tmp_path, "base", "verify = 3\n" + GOOD.replace(verify, ""))
    with pytest.raises(ConfigError, match=r"lacks the section \[verify\]"):
        load_profile(base)
    assert load_profile(write(tmp_path, "child", f"extends = '{base}'\n{verify}")).verify_sizes == ((160, 288),)


@pytest.mark.parametrize("name", [name for name in profile_names() if name.endswith(("-fp16", "-bf16", "-int8"))])
def test_a_shipped_profile_of_a_precision_differs_from_its_base_in_the_engine_alone(name: str) -> None:
    base_name, _, precision = name.rpartition("-")
    on_gpu = {"gpu": "swint-cpu", "gpu-swinb": "swinb-cpu"}
    found, base = load_profile(name), load_profile(on_gpu.get(base_name, base_name))
    engine = {key: getattr(found, key) for key in ("name", "runtime", "precision", "max_batch_size")}
    if base_name in on_gpu:  # every bucket is compiled: there are fewer, and what is verified lies in one
        engine |= {key: getattr(found, key) for key in ("preprocess", "verify_sizes")}
        fewer = replace(
            base.preprocess,
            resolution_buckets=found.preprocess.resolution_buckets,
            max_prompts=found.max_batch_size,  # TensorRT runs the prompts of a request in one batch
        )
        assert found.preprocess == fewer
        assert set(fewer.resolution_buckets) < set(base.preprocess.resolution_buckets)
        assert set(found.verify_sizes) <= set(fewer.resolution_buckets)
    assert found == replace(base, **engine)
    assert found.precision == precision
    assert found.runtime == ("tensorrt" if base_name in on_gpu else "openvino")


# calibration, gates and memory

CALIBRATION = """
[calibration]
images = "pictures"
annotations = "pictures/annotations.json"
"""
INT8 = GOOD.replace('precision = "fp32"', 'precision = "int8"')


def test_calibration_is_read_and_has_defaults(tmp_path: Path) -> None:
    usual = CalibrationSettings(
        images=Path("pictures"), annotations=Path("pictures/annotations.json"), pictures=64, method="min-max", seed=0
    )
    assert load(tmp_path, INT8 + CALIBRATION).calibration == usual
    chosen = CALIBRATION + 'pictures = 8\nmethod = "entropy"\nseed = 3\n'
    assert load(tmp_path, INT8 + chosen).calibration == replace(usual, pictures=8, method="entropy", seed=3)
    assert load(tmp_path, GOOD).calibration is None


def test_int8_without_pictures_to_calibrate_with_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="INT8 is calibrated with pictures, and the profile names none") as caught:
        load(tmp_path, INT8)
    assert "fix: add [calibration]; see demo-cpu-int8" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('method = "kl"', r"\[calibration\] method is 'kl'\n  fix: choose one of min-max, percentile, entropy"),
        ("method = 3", r"\[calibration\] method is 3"),
        ("pictures = 0", r"\[calibration\] pictures is 0"),
        ('pictures = "64"', r"\[calibration\] pictures is '64'"),
        ("seed = 1.5", r"\[calibration\] seed is 1\.5"),
        ("picture = 1", r"\[calibration\] has the unknown key picture"),
    ],
)
def test_what_is_wrong_in_the_calibration_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, f"{INT8}{CALIBRATION}{line}\n")
    with pytest.raises(ConfigError, match=r"\[calibration\] lacks images"):
        load(tmp_path, INT8 + CALIBRATION.replace('images = "pictures"', ""))


def test_gates_hold_unless_the_profile_says_why_not(tmp_path: Path) -> None:
    usual = load(tmp_path, GOOD)
    assert (usual.accept_over_gate, usual.workspace_mib) == ("", 4096)
    text = GOOD.replace("threads = 2", 'threads = 2\naccept_over_gate = "a trial"\nworkspace_mib = 512')
    found = load(tmp_path, text)
    assert (found.accept_over_gate, found.workspace_mib) == ("a trial", 512)
    for wrong, message in (
        ("accept_over_gate = true", r"\[engine\] accept_over_gate is True"),
        ("workspace_mib = 0", r"\[engine\] workspace_mib is 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(tmp_path, GOOD.replace("threads = 2", f"threads = 2\n{wrong}"))


def test_the_manifest_can_hold_a_profile_with_calibration(tmp_path: Path) -> None:
    told = json.loads(json.dumps(load(tmp_path, INT8 + CALIBRATION).to_dict()))
    assert told["calibration"]["images"] == "pictures"
    assert told["precision"] == "int8"
    assert json.loads(json.dumps(load(tmp_path, GOOD).to_dict()))["calibration"] is None
