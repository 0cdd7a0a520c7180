"""Read out of tritonserver's log what its start is at, and why it failed.

An error is one line, such as `E1124 02:47:19.927220 16705 model_lifecycle.cc:642] "failed to load ..."`; the message
is quoted as JSON, with its line breaks and its stack inside.
"""

import json
import re

_ERROR = re.compile(r'^E[0-9 :.]+ \S+] (".*")$', re.MULTILINE)
_MODEL_FAILED = re.compile(r"failed to load '(?P<model>[^']+)' version \d+: (?:\w+: )?(?P<reason>.*)", re.DOTALL)
_STACK = re.compile(r"\n+At:\n.*", re.DOTALL)
_WARM_UP = re.compile(r"model '([^']+)' instance \S+ is running warmup sample '([^']+)'")
ANSWERING = "asking whether it is ready"
_LISTENING = '"Started GRPCInferenceService at '
_LAST_LINES = 3
_NOISE = ("CudaDriverHelper has not been initialized.",)  # every start on a machine without a GPU says so


def failure_reasons(log: str) -> list[str]:
    """Return why the server did not start: what each failed model said, without its stack.

    Args:
        log: everything that tritonserver printed.

    Returns:
        A text of one line or a few for each model that failed; where none did, the last errors or lines.
    """
    errors = [text for match in _ERROR.finditer(log) if (text := _unquoted(match[1])) not in _NOISE]
    failed = {match["model"]: match["reason"] for match in map(_MODEL_FAILED.match, errors) if match}
    if failed:
        return [f"model {model}: {_STACK.sub('', reason).strip()}" for model, reason in failed.items()]
    lines = errors or [line for line in log.splitlines() if line.strip()]
    return lines[-_LAST_LINES:]


def warm_up_step(log: str) -> str:
    """Return what the start is at: a model and the sample that warms it up, else that the models are loaded.

    Args:
        log: what tritonserver has printed so far, with verbose lines.
    """
    steps = _WARM_UP.findall(log)
    return "warming up {} with {}".format(*steps[-1]) if steps else "loading its models"


def is_answering(log: str) -> bool:
    """Whether all models are loaded, and requests are listened for."""
    return _LISTENING in log


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text))
    except json.JSONDecodeError:
        return text.strip('"')
