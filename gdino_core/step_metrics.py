"""What the steps of the ensemble tell the server's metrics of themselves, because Triton does not.

Triton 2.51 counts a request that a Python model answered with an error among the successes of that model, and reports
how many requests wait but not how many may.
"""

import json
from collections.abc import Mapping
from typing import Final

# Codes of the errors that clients get.
INVALID_ARGUMENT: Final = "INVALID_ARGUMENT"  # the request is wrong
UNAVAILABLE: Final = "UNAVAILABLE"  # the server is stopping
INTERNAL: Final = "INTERNAL"  # the server is at fault
_ERRORS = ("COUNTER", "gdino_errors", "Requests that the model answered with an error")
_QUEUE_SIZE = ("GAUGE", "gdino_queue_size", "Requests of one priority that may wait before the model")


class Metric:
    """A number among the server's metrics, with the model's name as its label."""

    def __init__(self, kind: str, name: str, description: str, model: str, **labels: str) -> None:
        """Open it at zero.

        Args:
            kind: "COUNTER", which only grows, or "GAUGE".
            name: of the metric.
            description: of the metric.
            model: that reports it.
            labels: further ones.
        """
        import triton_python_backend_utils as pb_utils

        kind = getattr(pb_utils.MetricFamily, kind)
        # Kept, because the metrics of a family end with it.
        self._family = pb_utils.MetricFamily(name=name, description=description, kind=kind)
        self._metric = self._family.Metric(labels={"model": model, **labels})

    def add(self, number: int) -> None:
        """Count further, or back where it is a gauge."""
        self._metric.increment(number)

    def set(self, number: int) -> None:
        """Set a gauge."""
        self._metric.set(number)


class StepMetrics:
    """Errors by their code, and the size of the queue."""

    def __init__(self, args: Mapping[str, str]) -> None:
        """Open the errors at zero, so that the first one is seen as a rise.

        Args:
            args: what Triton gives to `initialize`.
        """
        model = args["model_name"]
        codes = (INVALID_ARGUMENT, UNAVAILABLE, INTERNAL)
        self._errors = {code: Metric(*_ERRORS, model, code=code) for code in codes}
        batching = json.loads(args["model_config"]).get("dynamic_batching", {})
        if size := int(batching.get("default_queue_policy", {}).get("max_queue_size", 0)):
            self._queue_size = Metric(*_QUEUE_SIZE, model)  # none where the queue has no limit
            self._queue_size.set(size)

    def count_error(self, code: str) -> None:
        """Count a request that is answered with an error."""
        self._errors[code].add(1)
