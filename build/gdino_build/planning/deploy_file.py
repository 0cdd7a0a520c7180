"""Write deploy.toml: a profile that extends a shipped one, with a table [deploy]; each line has its reason."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from gdino_build.planning.answers import Answers
from gdino_build.planning.decide import Decision


def base_profile(model: str, runtime: str, precision: str) -> str:
    """Name of the shipped profile that a deployment extends."""
    if runtime == "tensorrt":
        return f"gpu-{precision}" if model == "swint" else f"gpu-{model}-{precision}"
    return f"{model}-cpu" if precision == "fp32" else f"{model}-cpu-{precision}"


def format_deploy_file(answers: Answers, decisions: Mapping[str, Decision]) -> str:
    """deploy.toml as text."""
    runtime, precision = decisions["runtime"], decisions["precision"]
    base = base_profile(answers.model, runtime.value, precision.value)
    lines = [
        f"# Written by make plan for {_summary(answers)}.",
        "# A profile, with a table [deploy]: change what you like, then make deploy CONFIG=deploy.toml.",
        "",
        f"# {runtime.why}.",
        f"# {precision.why}.",
        f'extends = "{base}"',
    ]
    for table, keys in (
        ("engine", ("max_batch_size",)),
        ("preprocess", ("max_prompts",)),
        ("serving", ("max_queue_size", "cache_mib")),
    ):
        lines += ["", f"[{table}]", *(line for key in keys for line in _commented(key, decisions[key]))]
    lines += ["", "[deploy]", f'model = "{answers.model}"', *_commented("weights", decisions["weights"])]
    lines += ['mirror = ""  # https://host/models', 'file = ""    # of the weights, for weights = ["file"]']
    lines += _commented("copies", decisions["copies"])
    lines += ['way = "bare"  # the embedded server; "docker": docker/compose.yaml, with Prometheus and Grafana']
    return "\n".join(lines) + "\n"


def _commented(key: str, decision: Decision) -> Iterator[str]:
    yield f"# {decision.why}."
    yield f"{key} = {json.dumps(decision.value)}"


def _summary(answers: Answers) -> str:
    given: dict[str, Any] = asdict(answers)
    if answers.hardware == "cpu":
        del given["gpus"], given["gpu_memory_gib"]
    return ", ".join(f"{name} {value}" for name, value in given.items())
