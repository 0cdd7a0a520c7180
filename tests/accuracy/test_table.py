"""out/accuracy.json, .md and .png: the keys that others read, and what is over its gate."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from gdino_build.accuracy.report import check_table, format_table, write_table
from gdino_build.accuracy.table import Measured, Table, make_table
from gdino_core.errors import ParityError

FP32 = Measured(
    precision="fp32",
    ap=84.7,
    ap50=99.5,
    ap75=97.9,
    ar=92.3,
    bytes=22_000_000,
    latency_ms=40.0,
    peak_bytes=600 * 2**20,
    through="Triton",
)
ORIGINAL = replace(FP32, precision="original", ap=84.71, bytes=21_800_000, latency_ms=90.0)
FP16 = replace(
    FP32, precision="fp16", ap=84.75, bytes=11_400_000, latency_ms=None, peak_bytes=None, through="emulation"
)
INT8 = replace(FP32, precision="int8", ap=83.5, bytes=8_800_000, latency_ms=25.0)


def table(*measured: Measured, is_demo: bool = True) -> Table:
    return make_table(measured, hardware="two cores", scenes=500, is_demo=is_demo)


def test_accuracy_json_has_the_keys_that_others_read(tmp_path: Path) -> None:
    write_table(table(INT8, FP16, FP32, ORIGINAL), tmp_path / "out")
    content = json.loads((tmp_path / "out" / "accuracy.json").read_text(encoding="utf-8"))
    assert (content["hardware"], content["scenes"]) == ("two cores", 500)
    assert [row["precision"] for row in content["rows"]] == ["original", "fp32", "fp16", "int8"]
    assert content["rows"][2] == {
        "precision": "fp16",
        "ap": 84.75,
        "ap50": 99.5,
        "ap75": 97.9,
        "ar": 92.3,
        "bytes": 11_400_000,
        "latency_ms": None,
        "peak_bytes": None,
        "through": "emulation",
        "ap_loss": -0.05,
        "size_ratio": 0.5182,
        "gate": "AP loss at most 0.2, size at most 0.52x",
        "passed": True,
    }


def test_a_row_over_its_gate_says_so_everywhere(tmp_path: Path) -> None:
    judged = table(FP32, INT8)
    write_table(judged, tmp_path)
    [fp32, int8] = json.loads((tmp_path / "accuracy.json").read_text(encoding="utf-8"))["rows"]
    assert (fp32["passed"], int8["passed"], int8["ap_loss"]) == (True, False, 1.2)
    [line] = [line for line in (tmp_path / "accuracy.md").read_text(encoding="utf-8").splitlines() if "INT8" in line]
    assert "| 83.50 | 1.20 |" in line
    assert "NOT HELD" in line
    with pytest.raises(ParityError, match=r"int8 loses 1\.20 points of AP"):
        check_table(judged)
    check_table(table(FP32, FP16, ORIGINAL))


def test_the_demo_has_a_size_gate_of_its_own() -> None:
    good = replace(INT8, ap=84.5)
    check_table(table(FP32, good))
    with pytest.raises(ParityError, match=r"int8 has 0\.400x the bytes of fp32"):
        check_table(table(FP32, good, is_demo=False))


def test_without_fp32_nothing_is_judged() -> None:
    [row] = table(INT8).rows
    assert (row.ap_loss, row.size_ratio, row.passed, row.gate) == (None, None, True, "")
    assert "NOT HELD" not in format_table(table(INT8))


def test_what_an_emulation_cannot_tell_stays_empty_in_markdown() -> None:
    [line] = [line for line in format_table(table(FP32, FP16)).splitlines() if line.startswith("| FP16")]
    assert "| 11.4 MB | 0.52x |  |  | AP loss at most 0.2, size at most 0.52x: held | emulation |" in line


def test_the_picture_shows_all_precisions_and_is_replaced_when_whole(tmp_path: Path) -> None:
    paths = write_table(table(ORIGINAL, FP32, FP16, INT8), tmp_path)
    with Image.open(paths[2]) as first:
        assert first.width > 1000
        pixels = first.convert("RGB").tobytes()
    write_table(table(ORIGINAL, FP32, INT8), tmp_path)
    with Image.open(paths[2]) as second:
        assert second.convert("RGB").tobytes() != pixels
    assert not list(tmp_path.glob("*.partial"))
