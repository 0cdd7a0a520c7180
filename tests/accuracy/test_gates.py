"""Gates: exactly at the border is held, a hair beyond is not; assemble judges just the graphs that it is given."""

import json
from pathlib import Path
from typing import Any

import pytest

from gdino_build.accuracy.gate_check import check_gates
from gdino_build.accuracy.gates import gate_of, violations
from gdino_build.accuracy.record import AccuracyRecord, graphs_sha256, read_records, write_record
from gdino_core.errors import ConfigError, ExportError

MB = 1_000_000


def over(precision: str, **changed: Any) -> list[str]:
    values: dict[str, Any] = {"size_bytes": 1, "fp32_bytes": 100 * MB, "is_demo": False, "ap": 84.7, "fp32_ap": 84.7}
    return violations(precision, **(values | changed))


@pytest.mark.parametrize(("precision", "most"), [("fp16", 0.2), ("bf16", 0.5), ("int8", 1.0)])
def test_ap_may_fall_to_the_gate_and_no_further(precision: str, most: float) -> None:
    assert not over(precision, ap=84.7 - most)
    [said] = over(precision, ap=84.7 - most - 0.001)
    assert said.startswith(f"{precision} loses {most:.2f} points of AP (84.70 to {84.7 - most - 0.001:.2f})")
    assert said.endswith(f"the gate is {most:g}")
    assert not over(precision, ap=90.0)


@pytest.mark.parametrize(
    ("precision", "is_demo", "most"),
    [("fp16", False, 52 * MB), ("fp16", True, 52 * MB), ("int8", False, 32 * MB), ("int8", True, 42 * MB)],
)
def test_sizes_may_reach_the_gate_and_the_demo_has_its_own(precision: str, is_demo: bool, most: int) -> None:
    assert not over(precision, is_demo=is_demo, size_bytes=most)
    [said] = over(precision, is_demo=is_demo, size_bytes=most + 1)
    assert f"({most + 1:,} of 100,000,000), the gate is 0.{most // MB}x" in said


def test_both_gates_are_told_when_both_are_missed() -> None:
    assert len(over("int8", ap=80.0, size_bytes=90 * MB)) == 2


@pytest.mark.parametrize("precision", ["fp32", "original"])
def test_what_has_no_gate_is_never_over_it(precision: str) -> None:
    assert not over(precision, ap=0.0, size_bytes=900 * MB)


def test_bf16_has_no_gate_for_its_size() -> None:
    assert not over("bf16", size_bytes=900 * MB)
    assert gate_of("bf16").describe(is_demo=True) == "AP loss at most 0.5"


def test_ap_that_is_no_number_is_over_the_gate() -> None:
    assert len(over("fp16", ap=float("nan"))) == 1


@pytest.mark.parametrize("unknown", ["ap", "fp32_ap"])
def test_ap_that_was_not_measured_is_not_judged(unknown: str) -> None:
    assert not over("int8", **{"ap": 0.0, unknown: None})


# check_gates: the same for built graphs, with the records below out/


class Built:
    """Out/ with FP32 and INT8 graphs of chosen sizes."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.fp32, self.int8 = out / "demo-cpu" / "onnx", out / "demo-cpu-int8" / "onnx"
        for folder, fill, size in ((self.fp32, b"f", 1000), (self.int8, b"i", 400)):
            folder.mkdir(parents=True)
            for name in ("text_encoder", "detector"):
                (folder / f"{name}.onnx").write_bytes(fill * size)

    def record(self, graphs: Path, ap: float, **changed: Any) -> None:
        values: dict[str, Any] = {
            "profile": graphs.parent.name,
            "precision": "any",
            "dataset_sha256": "d" * 64,
            "scenes": 500,
            "ap50": 0.0,
            "ap75": 0.0,
            "ar": 0.0,
            "onnx_sha256": graphs_sha256(graphs),
            "latency_ms": None,
            "peak_bytes": None,
            "through": "",
            "hardware": "",
        }
        write_record(AccuracyRecord(ap=ap, **(values | changed)), graphs.parent)

    def check(self, **changed: Any) -> list[str]:
        values: dict[str, Any] = {"precision": "int8", "is_demo": True, "graphs": self.int8}
        return check_gates(out=self.out, fp32_graphs=self.fp32, **(values | changed))


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return Built(tmp_path / "out")


def test_without_records_sizes_alone_are_judged(built: Built) -> None:
    assert built.check() == []
    with pytest.raises(ConfigError, match=r"int8 has 0.400x the bytes .* 0.32x\n  fix: .*accept_over_gate = "):
        built.check(is_demo=False)


def test_a_variant_that_loses_too_much_is_refused_with_the_figures(built: Built) -> None:
    built.record(built.fp32, 84.7)
    built.record(built.int8, 83.6)
    with pytest.raises(ConfigError, match=r"int8 loses 1.10 points of AP \(84.70 to 83.60\), the gate is 1\n  fix: "):
        built.check()
    built.record(built.int8, 83.8)
    assert built.check() == []


def test_a_reason_in_the_profile_lets_it_pass_and_is_not_silent(built: Built) -> None:
    built.record(built.fp32, 84.7)
    built.record(built.int8, 80.0)
    assert built.check(accepted="half the latency matters more here") == [
        "int8 loses 4.70 points of AP (84.70 to 80.00), the gate is 1"
    ]
    with pytest.raises(ConfigError):
        built.check(accepted="  ")  # no words, no reason


def test_a_record_of_other_graphs_is_ignored(built: Built) -> None:
    built.record(built.fp32, 84.7)
    built.record(built.int8, 10.0, onnx_sha256={"text_encoder": "0" * 64, "detector": "0" * 64})
    assert built.check() == []
    built.record(built.int8, 10.0)
    (built.int8 / "detector.onnx").write_bytes(b"j" * 400)  # built again since
    assert built.check() == []


@pytest.mark.parametrize("other", [{"dataset_sha256": "e" * 64}, {"scenes": 499}])
def test_figures_on_other_pictures_are_not_compared(built: Built, other: dict[str, Any]) -> None:
    built.record(built.fp32, 84.7, **other)
    built.record(built.int8, 10.0)
    assert built.check() == []


def test_too_few_pictures_judge_nothing(built: Built) -> None:
    for scenes, is_judged in ((99, False), (100, True)):
        built.record(built.fp32, 84.7, scenes=scenes)
        built.record(built.int8, 10.0, scenes=scenes)
        if is_judged:
            with pytest.raises(ConfigError, match="int8 loses"):
                built.check()
        else:
            assert built.check() == []


def test_a_damaged_record_proves_nothing_and_stops_nothing(built: Built) -> None:
    built.record(built.fp32, 84.7)
    for content in ("", "{}", "[]", json.dumps({"ap": 1})):
        (built.out / "demo-cpu-int8" / "accuracy.json").write_text(content, encoding="utf-8")
        assert [record.profile for record in read_records(built.out)] == ["demo-cpu"]
        assert built.check() == []


def test_a_missing_graph_is_named(built: Built) -> None:
    (built.int8 / "detector.onnx").unlink()
    with pytest.raises(ExportError, match=r"detector\.onnx does not exist"):
        built.check()
