"""For which GPU a plan is compiled, and what is refused before any work is done."""

from pathlib import Path
from types import ModuleType

import pytest

from gdino_build.tensorrt.capability import choose_capability, parse_capability, read_gpu_capability
from gdino_build.tensorrt.flavour import Flavour
from gdino_core.errors import ConfigError, ExportError

FULL = Flavour(name="tensorrt", version="10.9.0.34", module=ModuleType("tensorrt"))


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the program nvidia-smi is looked for; nothing is there yet."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "nvidia-smi"


def answer(program: Path, text: str) -> None:
    program.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    program.chmod(0o755)


@pytest.mark.parametrize("text", ["89", "8.9", "sm89", "SM_89", " sm 8.9 "])
def test_a_capability_is_understood_however_it_is_written(text: str) -> None:
    assert parse_capability(text) == 89


def test_capabilities_of_three_digits_are_understood() -> None:
    assert parse_capability("120") == parse_capability("12.0") == 120


@pytest.mark.parametrize("text", ["", "9", "ada", "8.9.1", "-89", "1200"])
def test_what_is_no_capability_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is no compute capability\n  fix: write it such as SM=89"):
        parse_capability(text)


def test_the_gpu_at_hand_is_asked(nvidia_smi: Path) -> None:
    answer(nvidia_smi, "echo 8.9")
    assert read_gpu_capability() == 89


def test_equal_gpus_are_as_one_and_different_ones_need_a_choice(nvidia_smi: Path) -> None:
    answer(nvidia_smi, "echo 9.0; echo 9.0")
    assert read_gpu_capability() == 90
    answer(nvidia_smi, "echo 9.0; echo 12.0")
    with pytest.raises(ConfigError, match=r"GPUs of the compute capabilities 90, 120\n  fix: .* SM=90"):
        read_gpu_capability()


def test_a_machine_without_a_gpu_has_no_capability(nvidia_smi: Path) -> None:
    assert read_gpu_capability() is None
    answer(nvidia_smi, "echo 'NVIDIA-SMI has failed because it could not talk to the driver'; exit 9")
    assert read_gpu_capability() is None
    answer(nvidia_smi, "echo 'No devices were found'")
    assert read_gpu_capability() is None


def test_the_gpu_at_hand_is_the_default_and_a_given_one_comes_first(flavour: Flavour) -> None:
    assert choose_capability(None, 89, flavour) == 89
    assert choose_capability("12.0", 89, flavour) == 120


@pytest.mark.parametrize("text", ["90", "61", "999"])
def test_a_capability_that_rtx_does_not_know_is_refused_with_those_that_it_knows(text: str, flavour: Flavour) -> None:
    with pytest.raises(ConfigError, match=rf"tensorrt-rtx \S+ cannot compile for SM={text}(.|\n)*75, 80, 86, 89, 120"):
        choose_capability(text, None, flavour)


def test_without_a_gpu_and_without_a_choice_the_error_lists_the_choices(flavour: Flavour) -> None:
    with pytest.raises(ConfigError, match=r"no compute capability is named(.|\n)*name one of SM=75, 80, 86, 89, 120"):
        choose_capability(None, None, flavour)


def test_full_tensorrt_compiles_for_the_gpu_at_hand_and_for_no_other() -> None:
    assert choose_capability(None, 90, FULL) == choose_capability("90", 90, FULL) == 90
    with pytest.raises(ConfigError, match=r"tensorrt 10.9.0.34 cannot compile for SM=89 here\n  fix: choose .* SM=90"):
        choose_capability("89", 90, FULL)
    with pytest.raises(ExportError, match=r"nvidia-smi finds none here\n  fix: .*pip install tensorrt-rtx"):
        choose_capability("89", None, FULL)
