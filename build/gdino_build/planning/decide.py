"""Decide from answers by a table whose rows are tried from the top."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from gdino_build.planning.answers import Answers

Table = Mapping[str, list[dict[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is chosen, why, and which row of the table said so."""

    value: Any
    why: str
    row: int


def load_table() -> Table:
    """Read decisions.toml: rows by the decision that they are about."""
    source = resources.files("gdino_build.planning") / "decisions.toml"
    return tomllib.loads(source.read_text(encoding="utf-8"))


def decide(answers: Answers, table: Table) -> dict[str, Decision]:
    """The first row of each decision that holds; rows may ask for what was decided before, too."""
    given = asdict(answers)
    decisions = {}
    for name, rows in table.items():
        number, row = next((number, row) for number, row in enumerate(rows) if _holds(row["when"], given))
        decisions[name] = Decision(value=row["value"], why=row["why"], row=number)
        given[name] = row["value"]
    return decisions


def _holds(when: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    return all(_accepts(condition, given[name]) for name, condition in when.items())


def _accepts(condition: Any, value: Any) -> bool:
    if isinstance(condition, list):
        return value in condition
    return bool(condition.get("from", value) <= value) and (
        "below" not in condition or bool(value < condition["below"])
    )
