"""Tell what Triton's TensorRT backend needs in the config.pbtxt of a plan."""

from collections.abc import Mapping
from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2

from gdino_build.doctor.facts import format_capability
from gdino_build.engine import EngineInterface, EngineTensor
from gdino_build.tensorrt.flavour import FULL
from gdino_build.tensorrt.manifest import PlanManifest, PlanTensor
from gdino_build.triton_config import Config
from gdino_core.errors import ConfigError

_BACKEND = "tensorrt"
_TYPE_NAMES = {
    "UINT8": "u8",
    "INT32": "i32",
    "INT64": "i64",
    "FLOAT": "f32",
    "HALF": "f16",
}  # as triton_config has them


@dataclass(frozen=True, kw_only=True)
class TritonNeeds:
    """What a config.pbtxt needs for a plan.

    Attributes:
        max_batch_size: largest batch that every profile takes.
        profiles: indices of the plan's profiles as the backend names them; it runs each batch in the nearest one.
        interface: inputs and outputs, for triton_config.fit_to_engine.
    """

    max_batch_size: int
    profiles: tuple[str, ...]
    interface: EngineInterface


def triton_needs(manifest: PlanManifest) -> TritonNeeds:
    """What the config.pbtxt of a plan needs.

    Raises:
        ConfigError: the plan is TensorRT-RTX's, which Triton has no backend for.
    """
    if manifest.flavour != FULL:
        raise ConfigError(
            f"Triton's TensorRT backend cannot load a plan of {manifest.flavour} {manifest.version}",
            fix=f"compile it with full TensorRT, in the image that serves it: {manifest.rebuild_command}",
        )
    return TritonNeeds(
        max_batch_size=min(ranges.max[0] for profile in manifest.profiles for ranges in profile.values()),
        profiles=tuple(str(index) for index in range(len(manifest.profiles))),
        interface=EngineInterface(
            inputs={name: _tensor(one) for name, one in manifest.inputs.items()},
            outputs={name: _tensor(one) for name, one in manifest.outputs.items()},
        ),
    )


def write_needs(config: Config, needs: TritonNeeds, files: Mapping[int, str]) -> None:
    """Let a model be served by the TensorRT backend; its configuration is changed in place, but for its tensors' sizes.

    Args:
        config: a ModelConfig; see triton_config.fit_to_engine for the sizes. Its largest batch becomes the plan's.
        needs: of its plan.
        files: names of the plans in the version folder by compute capability, such as 89: the server chooses by GPU.
    """
    config.backend = _BACKEND
    config.default_model_filename = next(iter(files.values()))
    for capability, file in files.items():
        config.cc_model_filenames[format_capability(capability)] = file
    config.max_batch_size = needs.max_batch_size
    for tensor in config.input:
        tensor.allow_ragged_batch = False  # the backend batches requests of equal shapes
    del config.instance_group[:]
    config.instance_group.add(kind=model_config_pb2.ModelInstanceGroup.KIND_GPU, profile=needs.profiles)


def _tensor(tensor: PlanTensor) -> EngineTensor:
    type_name = _TYPE_NAMES.get(tensor.type_name, tensor.type_name)
    return EngineTensor(type_name=type_name, dims=tensor.dims[1:])
