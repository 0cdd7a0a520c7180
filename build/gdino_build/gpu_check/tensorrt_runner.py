"""Run both plans in TensorRT or TensorRT-RTX; torch holds their buffers, which it needs no further package for."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gdino_build.export import DETECTOR_INPUTS, TEXT_ENCODER_INPUTS
from gdino_build.gpu_check.profile_fit import fit_to_profile
from gdino_build.parity import Arrays
from gdino_build.tensorrt.flavour import RTX, Flavour, find_flavour
from gdino_build.tensorrt.manifest import check_plan, read_manifest
from gdino_core.contract import LOGITS, MODEL_DETECTOR, MODEL_TEXT_ENCODER, PHRASE_IDS
from gdino_core.errors import ExportError

TORCH_TYPES = {  # by TensorRT's names
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "UINT8": torch.uint8,
    "BOOL": torch.bool,
}


class TensorRtRunner:
    """See `Runner`. A plan cannot be given proposals; the served one is run as it is."""

    can_force = False

    def __init__(self, plans: Path, flavour_name: str) -> None:
        """Load both plans of a folder.

        Raises:
            ExportError: a plan is of another TensorRT or for another GPU, or cannot be loaded.
        """
        flavour = find_flavour(flavour_name)
        self.version = flavour.version
        self._stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._text = _Plan(flavour, plans / f"{MODEL_TEXT_ENCODER}.plan")
        self._detector = _Plan(flavour, plans / f"{MODEL_DETECTOR}.plan")

    def place(self, inputs: Arrays) -> tuple[int, int, dict[str, Tensor]]:
        """Lay a batch into the profile that takes it; tells the profile and the number of tokens before."""
        profile, fitted = fit_to_profile(inputs, self._detector.profiles)
        placed = {name: torch.from_numpy(value).cuda() for name, value in fitted.items()}
        torch.cuda.synchronize()
        return profile, inputs[PHRASE_IDS].shape[1], placed

    def run(self, placed: tuple[int, int, dict[str, Tensor]]) -> dict[str, Tensor]:
        """One pass; the text encoder has one profile, the detector one for each resolution."""
        profile, tokens, tensors = placed
        # Buffers are made on the stream that uses them, so that torch gives none of them away before it is done.
        with torch.cuda.stream(self._stream):
            text = self._text.enqueue(0, {name: tensors[name] for name in TEXT_ENCODER_INPUTS}, self._stream)
            named = {**tensors, **text}
            outputs = self._detector.enqueue(profile, {name: named[name] for name in DETECTOR_INPUTS}, self._stream)
            self._stream.synchronize()
        return {name: value[..., :tokens] if name == LOGITS else value for name, value in outputs.items()}

    def fetch(self, outputs: dict[str, Tensor]) -> Arrays:
        """Copy the outputs as float32."""
        return {name: value.float().cpu().numpy() for name, value in outputs.items()}


class _Plan:
    """A plan on the GPU."""

    def __init__(self, flavour: Flavour, path: Path) -> None:
        manifest = read_manifest(path)
        major, minor = torch.cuda.get_device_capability()
        check_plan(manifest, flavour.name, flavour.version, 10 * major + minor)
        trt = flavour.module
        self.profiles = manifest.profiles
        self._output_types = {name: TORCH_TYPES[tensor.type_name] for name, tensor in manifest.outputs.items()}
        # TensorRT does not keep its runtime and logger alive; the plan needs them as long as it lives.
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise ExportError(f"{flavour} cannot load {path}", fix=manifest.rebuild_command)
        self._context = _open_context(flavour, self._engine)
        if self._context is None:
            raise ExportError(f"{flavour} has no memory for {path}", fix="free GPU memory, or build smaller buckets")
        self._profile = -1

    def enqueue(self, profile: int, inputs: dict[str, Tensor], stream: Any) -> dict[str, Tensor]:
        """Start the plan on torch's current stream.

        Raises:
            ExportError: TensorRT refuses a shape, or cannot start.
        """
        context = self._context
        if profile != self._profile:
            context.set_optimization_profile_async(profile, stream.cuda_stream)
            self._profile = profile
        for name, tensor in inputs.items():
            if not context.set_input_shape(name, tuple(tensor.shape)):
                raise ExportError(
                    f"{name} {tuple(tensor.shape)} is outside of profile {profile}", fix="see its manifest"
                )
            context.set_tensor_address(name, tensor.data_ptr())
        outputs = {
            name: torch.empty(tuple(context.get_tensor_shape(name)), dtype=type_, device="cuda")
            for name, type_ in self._output_types.items()
        }
        for name, tensor in outputs.items():
            context.set_tensor_address(name, tensor.data_ptr())
        if not context.execute_async_v3(stream.cuda_stream):
            raise ExportError("TensorRT cannot start the plan", fix="what it printed is in the log")
        return outputs


def _open_context(flavour: Flavour, engine: Any) -> Any:
    if flavour.name != RTX:
        return engine.create_execution_context()
    # By default RTX compiles kernels for a new shape in the background, and runs slower ones until they are there.
    config = engine.create_runtime_config()
    config.dynamic_shapes_kernel_specialization_strategy = (
        flavour.module.DynamicShapesKernelSpecializationStrategy.EAGER
    )
    return engine.create_execution_context(config)
