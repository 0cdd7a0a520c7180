"""Profiles are read strictly: what is wrong in one is named, with what to write instead."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gdino_build.model import ARCHITECTURES, DEMO, SWINT_OGC
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
