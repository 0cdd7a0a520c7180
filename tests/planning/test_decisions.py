"""The decision table says what it should for each of its rows, and every plan is a profile that loads."""

import itertools
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from gdino_build.planning.answers import QUESTIONS, Answers, complete_answers, load_answers
from gdino_build.planning.decide import decide, load_table
from gdino_build.planning.deploy_file import format_deploy_file
from gdino_build.profile import load_profile
from gdino_core.errors import ConfigError

TABLE = load_table()
SERVER: dict[str, Any] = {
    "hardware": "datacenter-gpu",
    "gpus": 1,
    "gpu_memory_gib": 24.0,
    "memory_gib": 64.0,
    "network": "fast",
    "purpose": "product",
    "goal": "throughput",
    "labels": 20,
    "model": "swint",
}
CPU = SERVER | {"hardware": "cpu", "gpus": 0, "gpu_memory_gib": 0.0}

# One line a row of decisions.toml, in its order: answers for which the row counts, and what it says.
ROWS: dict[str, list[tuple[dict[str, Any], Any]]] = {
    "runtime": [
        (CPU, "openvino"),
        (SERVER | {"model": "demo"}, "openvino"),
        (SERVER, "tensorrt"),
    ],
    "precision": [
        (CPU | {"purpose": "research"}, "fp32"),
        (SERVER | {"hardware": "consumer-gpu", "network": "slow"}, "fp16"),  # the guide's
        (CPU, "int8"),  # the guide's
        (SERVER | {"purpose": "edge"}, "int8"),
        (SERVER | {"gpu_memory_gib": 4.0}, "int8"),
        (SERVER, "fp16"),
    ],
    "weights": [
        (SERVER | {"model": "demo"}, []),
        (CPU | {"network": "offline"}, ["file"]),
        (SERVER | {"hardware": "consumer-gpu", "network": "slow"}, ["huggingface", "github"]),  # the guide's
        (CPU, ["mirror", "huggingface", "github"]),  # the guide's
        (SERVER | {"network": "mirror"}, ["mirror"]),
        (SERVER | {"network": "slow"}, ["huggingface", "github"]),
        (SERVER, ["github", "huggingface"]),
    ],
    "copies": [
        (CPU, "one"),
        (SERVER | {"gpus": 4}, "one for each GPU"),  # the guide's
        (SERVER, "one"),
    ],
    "max_batch_size": [
        (CPU | {"model": "demo"}, 8),
        (CPU | {"goal": "latency"}, 1),
        (CPU | {"memory_gib": 8.0}, 1),
        (CPU | {"memory_gib": 16.0}, 2),
        (CPU, 4),
        (SERVER | {"gpu_memory_gib": 6.0}, 2),
        (SERVER | {"goal": "latency"}, 4),
        (SERVER, 8),
    ],
    "max_queue_size": [(SERVER | {"goal": "latency"}, 8), (CPU | {"model": "demo"}, 64), (CPU, 16)],
    "max_prompts": [
        (SERVER | {"gpu_memory_gib": 4.0}, 2),
        (SERVER, 4),
        (SERVER | {"labels": 1203, "goal": "latency"}, 4),
        (SERVER | {"labels": 1203}, 8),
        (CPU | {"labels": 1203}, 32),
    ],
    "cache_mib": [(SERVER | {"purpose": "edge"}, 16), (SERVER, 64)],
}


def test_every_row_has_its_line_here() -> None:
    assert {name: len(rows) for name, rows in TABLE.items()} == {name: len(rows) for name, rows in ROWS.items()}


@pytest.mark.parametrize(
    ("name", "row", "given", "value"),
    [(name, row, given, value) for name, rows in ROWS.items() for row, (given, value) in enumerate(rows)],
)
def test_a_row_counts_for_its_answers_and_says_this(name: str, row: int, given: dict[str, Any], value: object) -> None:
    decision = decide(Answers(**given), TABLE)[name]
    assert (decision.row, decision.value) == (row, value)
    assert decision.why


def every_answers() -> list[Answers]:
    words = {name: question.choices for name, question in QUESTIONS.items() if question.choices}
    numbers = {"gpus": (0, 1, 4), "gpu_memory_gib": (0.0, 4.0, 24.0), "memory_gib": (8.0, 64.0), "labels": (5, 1203)}
    found = []
    for values in itertools.product(*words.values(), *numbers.values()):
        try:
            found.append(Answers(**dict(zip([*words, *numbers], values, strict=True))))  # type: ignore[arg-type]
        except ConfigError:
            continue  # GPUs without memory, or a CPU with GPUs
    return found


def test_every_plan_is_a_profile_that_loads(tmp_path: Path) -> None:
    texts = {
        text.partition("\n")[2]: text
        for text in (format_deploy_file(answers, decide(answers, TABLE)) for answers in every_answers())
    }
    assert len(texts) > 50
    for text in texts.values():
        (tmp_path / "deploy.toml").write_text(text)
        profile = load_profile(str(tmp_path / "deploy.toml"))
        assert profile.runtime in ("openvino", "tensorrt")


def test_a_plan_says_why_above_each_line() -> None:
    text = format_deploy_file(Answers(**CPU), decide(Answers(**CPU), TABLE))
    assert text.startswith("# Written by make plan for hardware cpu, memory_gib 64.0, network fast")
    lines = text.splitlines()
    for key in ("extends", "max_batch_size", "max_prompts", "max_queue_size", "weights", "copies"):
        [place] = [number for number, line in enumerate(lines) if line.startswith(f"{key} =")]
        assert lines[place - 1].startswith("# ")
    assert 'extends = "swint-cpu-int8"' in text


@pytest.mark.parametrize(
    ("given", "base"),
    [(SERVER, "gpu-fp16"), (SERVER | {"model": "swinb"}, "gpu-swinb-fp16"), (CPU | {"model": "demo"}, "demo-cpu-int8")],
)
def test_a_deployment_extends_the_profile_of_its_model(given: dict[str, Any], base: str) -> None:
    answers = Answers(**given)
    assert f'extends = "{base}"' in format_deploy_file(answers, decide(answers, TABLE))


def test_what_is_not_given_is_asked_until_it_is_an_answer() -> None:
    typed = iter(["", "", "sloww", "slow", "edge", "latency", "7", "demo"])
    asked = []

    def ask(question: str) -> str:
        asked.append(question)
        return next(typed)

    answers = complete_answers({}, ask)
    assert answers.hardware == "cpu"
    assert (answers.network, answers.labels, answers.memory_gib) == ("slow", 7, 16.0)
    assert len(asked) == 8  # nothing about GPUs, which are not there, and one question twice
    assert asked[0] == "What does it run on? (cpu | consumer-gpu | datacenter-gpu) [cpu] "


def test_shipped_answers_are_complete() -> None:
    assert asdict(complete_answers(load_answers("cpu"), None))["model"] == "demo"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (CPU | {"gpus": 2}, "hardware is cpu and gpus is 2"),
        (SERVER | {"gpu_memory_gib": 0.0}, "gpu_memory_gib is 0"),
        (CPU | {"network": "carrier pigeon"}, "network is 'carrier pigeon'\n  fix: choose one of fast"),
        (CPU | {"memory_gib": "much"}, "memory_gib is 'much'\n  fix: write a number"),
        (CPU | {"memory_gib": -1}, "memory_gib is -1\n  fix: write a number of 0 or more"),
        ({"hardware": "cpu"}, "memory_gib is not answered\n  fix: answer it: --memory-gib"),
    ],
)
def test_answers_that_are_wrong_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        complete_answers(given, None)


def test_files_of_answers_that_are_wrong_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are no answers none"):
        load_answers("none")
    (tmp_path / "mine.toml").write_text('colour = "red"')
    with pytest.raises(ConfigError, match="answers colour, which is not asked"):
        load_answers(str(tmp_path / "mine.toml"))
    (tmp_path / "mine.toml").write_text("hardware = ")
    with pytest.raises(ConfigError, match=r"mine\.toml is not TOML"):
        load_answers(str(tmp_path / "mine.toml"))
