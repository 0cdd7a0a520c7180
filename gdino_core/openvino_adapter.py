"""The Triton model that runs an OpenVINO engine, for the model.py of every such step.

It is here and not in the repository because Triton shows a model only its own folder.
"""

from pathlib import Path
from typing import Any

from gdino_core.batching import count_rows
from gdino_core.engine_inputs import check_engine_inputs
from gdino_core.openvino_engine import ENGINE_FILE_NAME, OpenVinoEngine, OpenVinoSettings
from gdino_core.settings import PreprocessSettings
from gdino_core.step_metrics import Metric, StepMetrics
from gdino_core.triton_adapter import (
    Arrays,
    input_arrays,
    read_parameters,
    send_response,
    to_error_response,
    to_response,
)

# Triton counts a call of `execute` as one batch, whatever shapes it holds. Rows by inferences is the mean batch size.
_INFERENCES = ("COUNTER", "gdino_engine_inferences", "Inferences of the engine, each of one batch")
_ROWS = ("COUNTER", "gdino_engine_rows", "Pictures or prompts in those inferences")
_RUNNING = ("GAUGE", "gdino_engine_running", "Requests that the engine is at work on")


class OpenVinoModel:
    """Answers the requests of one `execute` call with as few inferences as their shapes allow."""

    def initialize(self, args: dict[str, str]) -> None:
        """Compile the engine that lies beside model.py."""
        parameters = read_parameters(args["model_config"])
        settings = OpenVinoSettings.from_parameters(parameters)
        self._preprocess = PreprocessSettings.from_parameters(parameters)
        folder = Path(args["model_repository"]) / args["model_version"]
        self._engine = OpenVinoEngine(folder / ENGINE_FILE_NAME, settings)
        self._metrics = StepMetrics(args)
        model = args["model_name"]
        self._inferences, self._rows, self._running = (Metric(*one, model) for one in (_INFERENCES, _ROWS, _RUNNING))

    def execute(self, requests: list[Any]) -> None:
        """Run the engine, on requests of the same shapes together; each is answered as soon as it can be."""
        self._running.set(len(requests))
        good, inputs = self._check(requests)
        batches = self._engine.plan(inputs)
        self._inferences.add(len(batches))
        self._rows.add(sum(map(count_rows, batches)))
        for place, outcome in self._engine.infer_batches(batches, inputs):
            response = self._to_error(outcome) if isinstance(outcome, Exception) else to_response(outcome)
            send_response(good[place], response)
        self._running.set(0)

    def _check(self, requests: list[Any]) -> tuple[list[Any], list[Arrays]]:
        """Answer the requests that are wrong; return the others, and their inputs."""
        good: list[Any] = []
        inputs: list[Arrays] = []
        for request in requests:
            try:
                arrays = input_arrays(request, self._engine.input_names)
                check_engine_inputs(arrays, self._preprocess)
            except Exception as error:
                send_response(request, self._to_error(error))
            else:
                good.append(request)
                inputs.append(arrays)
        return good, inputs

    def _to_error(self, error: Exception) -> Any:
        return to_error_response(error, self._metrics.count_error)
