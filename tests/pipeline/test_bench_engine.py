"""What `bench-engine` reports is what it timed: round by round, beside an original that is told when it fails."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from gdino_build.bench_engine import (
    CAPTION,
    ORIGINAL,
    Timings,
    detector_inputs,
    format_timings,
    original_timed,
    time_interleaved,
)
from gdino_build.engine import onnx_to_openvino
from gdino_build.export import DETECTOR_INPUTS
from gdino_build.machine import describe_hardware
from gdino_build.model import DEMO
from gdino_core import contract
from gdino_core.errors import ConfigError, ServerError
from gdino_core.prompt import encode_prompt

# The machine slowed down in the last round: ratios of medians would be other than medians of ratios.
TIMINGS = Timings(
    image_hw=(800, 1216),
    tokens=16,
    seconds={ORIGINAL: [10.0, 12.0, 40.0], "fp32": [5.0, 4.0, 8.0], "int8": [2.0, 3.0, 8.0]},
)


def test_medians_are_of_the_rounds_and_speedups_of_the_ratios_in_each_round() -> None:
    assert TIMINGS.medians() == {ORIGINAL: 12.0, "fp32": 5.0, "int8": 3.0}
    assert TIMINGS.speedups() == {"fp32": 3.0, "int8": 5.0}  # of 2, 3, 5 and of 5, 4, 5


def test_the_file_has_the_keys_that_others_read() -> None:
    written = json.loads(json.dumps(TIMINGS.to_dict()))
    assert written == {
        "hardware": describe_hardware(),
        "shape": {"height": 800, "width": 1216, "tokens": 16, "batch": 1},
        "rounds": 3,
        "median_s": {"original": 12.0, "fp32": 5.0, "int8": 3.0},
        "speedup_vs_original": {"fp32": 3.0, "int8": 5.0},
        "fastest_s": {"original": 10.0, "fp32": 4.0, "int8": 2.0},
        "seconds": {"original": [10.0, 12.0, 40.0], "fp32": [5.0, 4.0, 8.0], "int8": [2.0, 3.0, 8.0]},
    }


def test_the_table_has_a_row_for_the_original_and_each_engine() -> None:
    assert [line.split() for line in format_timings(TIMINGS).splitlines()] == [
        ["median", "s", "x", "original", "fastest", "s", "x", "original"],
        ["original", "12.00", "1.00", "10.00", "1.00"],
        ["fp32", "5.00", "3.00", "4.00", "2.50"],
        ["int8", "3.00", "5.00", "2.00", "5.00"],
    ]


# what is run


def test_the_prompt_fills_its_16_tokens_so_that_the_original_works_on_as_many() -> None:
    assert (encode_prompt((CAPTION,), (16,)).phrase_ids >= 0).all()


def test_the_picture_fills_its_bucket() -> None:
    inputs = detector_inputs((64, 96), 128)
    assert set(inputs) == set(DETECTOR_INPUTS)
    assert inputs[contract.PIXELS].shape == (1, 3, 64, 96)
    assert inputs[contract.PIXELS].std() > 10
    assert inputs[contract.VALID_HW].tolist() == [[64, 96]]
    assert inputs[contract.TEXT_FEATURES].shape == (1, 16, 128)


def test_every_round_runs_the_original_and_each_engine_and_the_first_does_not_count(
    onnx_folder: Path, tmp_path: Path
) -> None:
    engine = tmp_path / "detector.xml"
    onnx_to_openvino(onnx_folder / "detector.onnx", engine)
    seconds = iter([99.0, 1.0, 2.0])
    found = time_interleaved({"fp32": engine, "bf16": engine}, lambda: next(seconds), (64, 96), 2, 1)
    assert next(seconds, None) is None
    assert list(found.seconds) == [ORIGINAL, "fp32", "bf16"]
    assert found.seconds[ORIGINAL] == [1.0, 2.0]
    for name in ("fp32", "bf16"):
        assert len(found.seconds[name]) == 2
        assert all(0 < one < 60 for one in found.seconds[name])
    assert (found.image_hw, found.tokens) == ((64, 96), 16)
    assert detector_inputs((64, 96), DEMO.hidden_dim)[contract.TEXT_FEATURES].dtype == np.float32


# the original in its own environment: its side of the conversation, spoken by a shell

ARGUMENTS = {"model": "demo", "image_hw": (64, 96), "threads": 2}


def environment(tmp_path: Path, script: str) -> Path:
    python = tmp_path / "environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    python.chmod(0o755)
    return tmp_path / "environment"


def timed(tmp_path: Path, script: str) -> AbstractContextManager[Callable[[], float]]:
    folder = environment(tmp_path, script)
    return original_timed(root=tmp_path, environment=folder, weights=tmp_path / "w.safetensors", **ARGUMENTS)


def test_each_run_is_one_line_there_and_one_back(tmp_path: Path) -> None:
    script = 'echo "$@" > asked; echo 16; n=0; while read line; do n=$((n + 1)); echo $n.5; done'
    with timed(tmp_path, script) as run:
        assert [run(), run(), run()] == [1.5, 2.5, 3.5]
    asked = (tmp_path / "asked").read_text(encoding="utf-8")
    assert asked.startswith("-m tests.reference.time_original --model demo --weights ")
    assert f"--size 64x96 --caption {CAPTION} --threads 2" in asked


def test_an_environment_that_is_missing_is_told_with_what_makes_it(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"the original's environment .*nowhere is not there") as caught,
        original_timed(root=tmp_path, environment=tmp_path / "nowhere", weights=tmp_path, **ARGUMENTS),
    ):
        pass
    assert "fix: make it with tests/reference/make_environment.sh" in str(caught.value)


@pytest.mark.parametrize("script", ["exit 3", "echo 16; exec 0<&-; sleep 0.2; exit 3", "echo 16; read line; exit 3"])
def test_an_original_that_ends_is_told_with_its_exit_code(tmp_path: Path, script: str) -> None:
    with (
        pytest.raises(ServerError, match="the original ended with exit code 3") as caught,
        timed(tmp_path, script) as run,
    ):
        run()
    assert "fix: what it printed above says why" in str(caught.value)


def test_an_original_that_reads_the_prompt_otherwise_is_not_compared(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match="the original makes 12 tokens of the prompt, not 16"),
        timed(tmp_path, "echo 12; read line"),
    ):
        pass


@pytest.mark.parametrize("line", ["", "words"])
def test_an_original_that_answers_no_number_is_not_timed(tmp_path: Path, line: str) -> None:
    with pytest.raises(ServerError, match="the original answered "), timed(tmp_path, f"echo '{line}'; read line"):
        pass
