"""Run both graphs of a folder in ONNX Runtime, on a GPU or on a CPU."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from gdino_build.export import DETECTOR_INPUTS, TEXT_ENCODER_INPUTS
from gdino_build.parity import PROPOSALS, Arrays
from gdino_build.stages import with_proposals_as_input
from gdino_core.contract import MODEL_DETECTOR, MODEL_TEXT_ENCODER
from gdino_core.errors import ExportError

_PROVIDERS: dict[str, Any] = {
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),  # on by default: FP32 products would have 10 bits
    "cpu": ("CPUExecutionProvider", {}),
}
_QUIET = 3  # errors only


class OnnxRuntimeRunner:
    """See `Runner`."""

    can_force = True

    def __init__(self, graphs: Path, device: str) -> None:
        """Open both graphs.

        Raises:
            ExportError: ONNX Runtime would run them elsewhere.
        """
        self.version = ort.__version__
        self._device, self._detector_path = device, graphs / f"{MODEL_DETECTOR}.onnx"
        if device == "cuda":
            ort.preload_dlls()  # CUDA's libraries of the Python packages, where the system has none
        self._text = self._open(str(graphs / f"{MODEL_TEXT_ENCODER}.onnx"))
        self._detector = self._open(str(self._detector_path))

    # Only comparisons need it, and at full size it takes as much memory again.
    @cached_property
    def _forced(self) -> Any:
        return self._open(with_proposals_as_input(onnx.load(self._detector_path)).SerializeToString())

    def place(self, inputs: Arrays) -> dict[str, Any]:
        """Copy inputs to the device."""
        wanted = {*TEXT_ENCODER_INPUTS, *DETECTOR_INPUTS, PROPOSALS} & set(inputs)
        return {name: ort.OrtValue.ortvalue_from_numpy(inputs[name], self._device, 0) for name in sorted(wanted)}

    def run(self, placed: dict[str, Any]) -> dict[str, Any]:
        """One pass; the text features stay on the device."""
        text = self._run(self._text, {name: placed[name] for name in TEXT_ENCODER_INPUTS})
        named = {**placed, **text}
        if PROPOSALS in placed:
            return self._run(self._forced, {name: named[name] for name in (*DETECTOR_INPUTS, PROPOSALS)})
        return self._run(self._detector, {name: named[name] for name in DETECTOR_INPUTS})

    def fetch(self, outputs: dict[str, Any]) -> Arrays:
        """Copy the outputs."""
        return {name: value.numpy().astype(np.float32) for name, value in outputs.items()}

    def _open(self, graph: str | bytes) -> Any:
        options = ort.SessionOptions()
        options.log_severity_level = _QUIET
        session = ort.InferenceSession(graph, options, providers=[_PROVIDERS[self._device]])
        wanted = _PROVIDERS[self._device][0]
        if wanted not in session.get_providers():  # it falls back to the CPU, and only logs it
            raise ExportError(
                f"onnxruntime {ort.__version__} cannot load {wanted}",
                fix="install the CUDA and cuDNN that its release notes name",
            )
        return session

    def _run(self, session: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        binding = session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        names = [output.name for output in session.get_outputs()]
        for name in names:
            binding.bind_output(name, self._device)
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return dict(zip(names, binding.get_outputs(), strict=True))
