"""What the original answered: tests/goldens, with an id for each case."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.reference.captions import Caption

FOLDER = Path(__file__).parents[1] / "goldens"
Case = dict[str, Any]


def read_golden(name: str) -> Case:
    """Read a JSON file of tests/goldens."""
    golden: Case = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return golden


def caption_cases(name: str) -> list[Any]:
    """Cases of a file as parameters, `caption` written out, with ids such as chinese-7."""
    cases = read_golden(name)["cases"]
    for case in cases:
        case["caption"] = Caption(kind=case["kind"], written=case["caption"]).text
    return with_ids(cases)


def with_ids(cases: list[Case]) -> list[Any]:
    """Cases as parameters, numbered within their kind."""
    counts: dict[str, int] = {}
    parameters = []
    for case in cases:
        counts[case["kind"]] = counts.get(case["kind"], 0) + 1
        parameters.append(pytest.param(case, id=f"{case['kind']}-{counts[case['kind']]}"))
    return parameters
