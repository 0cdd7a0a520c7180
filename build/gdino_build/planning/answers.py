"""The questions, and their answers: from a file, from flags, or asked one by one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, Final

from gdino_build.toml_tables import read_toml, toml_names
from gdino_core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question.

    Attributes:
        text: what is asked.
        default: answer of who just presses Enter.
        choices: words to choose from; empty for a number.
    """

    text: str
    default: str | int | float
    choices: Sequence[str] = ()

    def read(self, name: str, given: object) -> str | int | float:
        """Check an answer, which a person typed or a file has.

        Raises:
            ConfigError: it is none of the choices, or no number of 0 or more.
        """
        if self.choices:
            if given not in self.choices:
                raise ConfigError(f"{name} is {given!r}", fix=f"choose one of {', '.join(self.choices)}")
            return str(given)
        try:
            number = int(str(given)) if isinstance(self.default, int) else float(str(given))
        except ValueError as error:
            raise ConfigError(f"{name} is {given!r}", fix="write a number, such as 16") from error
        if not 0 <= number < float("inf"):
            raise ConfigError(f"{name} is {given!r}", fix="write a number of 0 or more")
        return number


QUESTIONS: Final[Mapping[str, Question]] = {
    "hardware": Question(text="What does it run on?", default="cpu", choices=("cpu", "consumer-gpu", "datacenter-gpu")),
    "gpus": Question(text="How many GPUs?", default=0),
    "gpu_memory_gib": Question(text="How much memory has each GPU, in GiB?", default=0.0),
    "memory_gib": Question(text="How much memory has the machine, in GiB?", default=16.0),
    "network": Question(text="How is its network?", default="fast", choices=("fast", "slow", "mirror", "offline")),
    "purpose": Question(text="What is it for?", default="product", choices=("research", "product", "edge")),
    "goal": Question(text="What counts more?", default="throughput", choices=("latency", "throughput")),
    "labels": Question(text="How many labels has a request?", default=20),
    "model": Question(text="Which model?", default="swint", choices=("demo", "swint", "swinb")),
}


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Answers to QUESTIONS, under the same names.

    Raises:
        ConfigError: GPUs are counted where there are none, or none where there are.
    """

    hardware: str
    gpus: int
    gpu_memory_gib: float
    memory_gib: float
    network: str
    purpose: str
    goal: str
    labels: int
    model: str

    def __post_init__(self) -> None:
        """Check that the answers fit each other."""
        if (self.hardware == "cpu") != (self.gpus == 0):
            raise ConfigError(f"hardware is {self.hardware} and gpus is {self.gpus}", fix="change one of the two")
        if self.gpus and not self.gpu_memory_gib:
            raise ConfigError("gpu_memory_gib is 0", fix="say how much memory each GPU has, such as 24")


def answers_names() -> list[str]:
    """Names of the answers that are shipped."""
    return toml_names(resources.files("gdino_build.planning") / "answers")


def load_answers(name: str) -> dict[str, Any]:
    """Read a file of answers.

    Args:
        name: of shipped answers, such as "cpu", or the path of a .toml file.

    Raises:
        ConfigError: there is no such file, or it has something that is not asked.
    """
    shipped = resources.files("gdino_build.planning") / "answers" / f"{name}.toml"
    source = Path(name) if name.endswith(".toml") else shipped
    if not source.is_file():
        raise ConfigError(
            f"there are no answers {name}", fix=f"choose one of {', '.join(answers_names())}, or a .toml file"
        )
    found = read_toml(source, name, 'write lines such as: hardware = "cpu"')
    if unknown := sorted(found.keys() - QUESTIONS.keys()):
        raise ConfigError(f"{name} answers {unknown[0]}, which is not asked", fix=f"keys: {', '.join(QUESTIONS)}")
    return found


def complete_answers(given: Mapping[str, Any], ask: Callable[[str], str] | None) -> Answers:
    """Check answers, and get those that are missing.

    Args:
        given: some answers, by name.
        ask: shows a question and returns what a person typed, "" for the default; None: nobody is there to ask.

    Raises:
        ConfigError: an answer is wrong, or is missing and nobody is there to ask.
    """
    found: dict[str, Any] = {}
    for name in (field.name for field in fields(Answers)):
        question = QUESTIONS[name]
        if name in given:
            found[name] = question.read(name, given[name])
        elif name in ("gpus", "gpu_memory_gib") and found.get("hardware") == "cpu":
            found[name] = question.default
        elif ask is None:
            raise ConfigError(f"{name} is not answered", fix=f"answer it: --{name.replace('_', '-')}")
        else:
            found[name] = _asked(name, question, ask)
    return Answers(**found)


def _asked(name: str, question: Question, ask: Callable[[str], str]) -> str | int | float:
    choices = f" ({' | '.join(question.choices)})" if question.choices else ""
    while True:
        typed = ask(f"{question.text}{choices} [{question.default}] ").strip()
        try:
            return question.read(name, typed or question.default)
        except ConfigError as error:
            print(error)
