"""The Triton model that runs an OpenVINO engine, for the model.py of every such step.

It is here and not in the repository because Triton shows a model only its own folder.
"""

from pathlib import Path
from typing import Any

from gdino_core.openvino_engine import ENGINE_FILE_NAME, OpenVinoEngine, OpenVinoSettings
from gdino_core.triton_adapter import input_arrays, read_parameters, to_error_response, to_response


class OpenVinoModel:
    """Answers all requests of one `execute` call with one inference."""

    def initialize(self, args: dict[str, str]) -> None:
        """Compile the engine that lies beside model.py."""
        settings = OpenVinoSettings.from_parameters(read_parameters(args["model_config"]))
        folder = Path(args["model_repository"]) / args["model_version"]
        self._engine = OpenVinoEngine(folder / ENGINE_FILE_NAME, settings)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run the engine; Triton puts only requests of the same shapes together."""
        try:
            inputs = [input_arrays(request, self._engine.input_names) for request in requests]
            return [to_response(outputs) for outputs in self._engine.infer_together(inputs)]
        except Exception as error:
            # Shapes were checked before: what fails here would fail for each of them alone.
            return [to_error_response(error) for _ in requests]
