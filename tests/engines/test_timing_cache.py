"""Measurements of kernels outlive a build, and a damaged file of them harms none."""

from dataclasses import replace
from pathlib import Path

import pytest

from gdino_build.tensorrt.flavour import Flavour
from gdino_build.tensorrt.plan import onnx_to_plan
from gdino_build.tensorrt.timing_cache import cache_path, read_cache, write_cache
from tests.engines.settings import make_settings

TIMINGS = bytes(range(256)) * 4


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_cache(tmp_path / "a.timing", TIMINGS)
    return tmp_path / "a.timing"


def test_what_was_written_is_read(written: Path) -> None:
    assert read_cache(written) == TIMINGS


def test_a_missing_file_has_no_measurements(tmp_path: Path) -> None:
    assert read_cache(tmp_path / "none.timing") == b""


@pytest.mark.parametrize("at", [0, 20, -1])
def test_one_changed_byte_anywhere_makes_the_file_count_as_empty(written: Path, at: int) -> None:
    content = bytearray(written.read_bytes())
    content[at] ^= 1
    written.write_bytes(content)
    assert read_cache(written) == b""


@pytest.mark.parametrize("kept", [0, 10, 300, -1])
def test_a_cut_file_counts_as_empty(written: Path, kept: int) -> None:
    written.write_bytes(written.read_bytes()[:kept])
    assert read_cache(written) == b""


def test_another_version_flavour_or_gpu_has_another_file(flavour: Flavour, tmp_path: Path) -> None:
    paths = {
        cache_path(tmp_path, flavour, 89),
        cache_path(tmp_path, flavour, 80),
        cache_path(tmp_path, replace(flavour, version="1.8.0"), 89),
        cache_path(tmp_path, replace(flavour, name="tensorrt"), 89),
    }
    assert len(paths) == 4


def test_builds_share_the_file_and_one_that_finds_it_damaged_makes_it_anew(
    small_detector: Path, flavour: Flavour, tmp_path: Path
) -> None:
    settings = make_settings(tmp_path)
    cache = cache_path(settings.timing_caches, flavour, 89)
    first = onnx_to_plan(small_detector, tmp_path / "first" / "a.plan", settings, flavour)
    timings = read_cache(cache)
    assert timings
    cache.write_bytes(b"damaged")
    second = onnx_to_plan(small_detector, tmp_path / "second" / "a.plan", settings, flavour)
    assert read_cache(cache) == timings
    assert [path.name for path in settings.timing_caches.iterdir()] == [cache.name]
    assert first.profiles == second.profiles
