"""Show how far the builder is."""

import time
from typing import Any

from tqdm import tqdm

from gdino_build.tensorrt.flavour import Flavour

_MOST_STEPS_DRAWN = 100  # phases of thousands of steps last less than a second
_SECONDS_BETWEEN = 0.1


def open_progress(flavour: Flavour, bar: "tqdm[Any]") -> Any:
    """A monitor that shows the innermost phase of a build on a bar.

    TensorRT-RTX compiles a whole optimisation profile in one step of the phase "Determining refit engines": tens of
    seconds pass between two steps.
    """
    base: Any = flavour.module.IProgressMonitor

    class Progress(base):  # type: ignore[misc]  # its base is known only now
        def __init__(self) -> None:
            super().__init__()
            self._phases: list[list[Any]] = []  # name, steps, done
            self._drawn = 0.0

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            """Called by TensorRT."""
            self._phases.append([name, steps, 0])
            self._show()

        def step_complete(self, name: str, step: int) -> bool:
            """Called by TensorRT; False would end the build."""
            for phase in self._phases:
                if phase[0] == name:
                    phase[2] = step + 1
            self._show()
            return True

        def phase_finish(self, name: str) -> None:
            """Called by TensorRT."""
            self._phases = [phase for phase in self._phases if phase[0] != name]
            self._show()

        def _show(self) -> None:
            if not self._phases:
                return
            name, bar.total, bar.n = self._phases[-1]
            if bar.total <= _MOST_STEPS_DRAWN or time.monotonic() - self._drawn >= _SECONDS_BETWEEN:
                self._drawn = time.monotonic()
                bar.set_description(name)  # draws

    return Progress()
