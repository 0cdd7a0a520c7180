"""The process of one runner: it loads, then answers each line of its standard input with one line, both JSON.

Imports no more than numpy, for the original's environment too.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import numpy as np

from gdino_build.gpu_check.runner import Runner


def serve(load: Callable[[], Runner]) -> None:
    """Load a runner and answer until standard input ends.

    A request has `inputs` (.npz), `passes` to be timed, `outputs` (.npz to write, or null) and `release`; its answer
    `seconds` of each pass, from inputs on the device to outputs on the device. Whatever fails is answered as `error`.
    """
    # What libraries print must not get between the answers.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1) as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        try:
            runner = load()
        except Exception as error:  # whatever it is, the other end tells it, and goes on with what works
            _tell(answers, _failure(error))
            return
        _tell(answers, {"version": runner.version, "can_force": runner.can_force})
        for line in sys.stdin:
            try:
                found = _work(runner, json.loads(line))
            except Exception as error:
                found = _failure(error)
            _tell(answers, found)


def _tell(answers: TextIO, content: Mapping[str, Any]) -> None:
    print(json.dumps(content), file=answers)


def _failure(error: Exception) -> Mapping[str, str]:
    return {"error": f"{type(error).__name__}: {error}"}


def _work(runner: Runner, request: Mapping[str, Any]) -> Mapping[str, Any]:
    with np.load(request["inputs"], allow_pickle=False) as arrays:
        placed = runner.place(dict(arrays))
    try:
        outputs = runner.run(placed)  # warms up: kernels are chosen and memory is taken in the first pass of a shape
        seconds = []
        for _ in range(request["passes"]):
            # The host's clock for all: ONNX Runtime keeps its stream to itself, so no event could be put into it.
            started = time.perf_counter()
            outputs = runner.run(placed)
            seconds.append(time.perf_counter() - started)
        if request["outputs"]:
            np.savez(request["outputs"], **runner.fetch(outputs))
        return {"seconds": seconds}
    finally:
        outputs = placed = None
        if request["release"]:
            _release()


def _release() -> None:
    """Give memory back that torch keeps for its next pass; what others keep, they keep until their process ends."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
