"""Read, check and write config.pbtxt with the protobuf schema that tritonclient ships."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from gdino_build.engine import EngineInterface, EngineTensor
from gdino_core.errors import ConfigError

Config = Any  # model_config_pb2.ModelConfig, which has no type stubs
Configs = Mapping[str, Config]

CONFIG_FILE_NAME = "config.pbtxt"
_DATA_TYPES = {
    "u8": "TYPE_UINT8",
    "i32": "TYPE_INT32",
    "i64": "TYPE_INT64",
    "f32": "TYPE_FP32",
    "f16": "TYPE_FP16",
}


def read_config(path: Path) -> Config:
    """Read a config.pbtxt.

    Raises:
        ConfigError: the file is missing, is not the text of a ModelConfig, or has another model's name.
    """
    try:
        config = text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", fix="every model needs a config.pbtxt") from error
    except text_format.ParseError as error:
        raise ConfigError(
            f"{path} is not a Triton model configuration: {error}",
            fix="the field names stand in Triton's model_config.proto",
        ) from error
    if config.name != path.parent.name:
        raise ConfigError(f"{path} names the model {config.name!r}", fix=f'write name: "{path.parent.name}"')
    return config


def write_config(config: Config, path: Path, source: Path) -> None:
    """Write a configuration as text that says where to edit it."""
    header = f"# Assembled from {source.parent.name}/{source.name} of model_repository/: edit it there.\n"
    path.write_text(header + text_format.MessageToString(config), encoding="utf-8")


def set_parameters(config: Config, parameters: Mapping[str, str]) -> None:
    """Set parameters, in place of what the source says where it has them too."""
    for name, value in parameters.items():
        config.parameters[name].string_value = value


def fit_to_engine(config: Config, interface: EngineInterface) -> None:
    """Check a step's tensors against its engine's, and write the sizes that the engine fixes where dims say -1.

    Args:
        config: of the step; changed in place.
        interface: of its engine.

    Raises:
        ConfigError: a name, an element type or a size differs.
    """
    for kind, declared, found in (
        ("input", config.input, interface.inputs),
        ("output", config.output, interface.outputs),
    ):
        names = {tensor.name for tensor in declared}
        if names != found.keys():
            raise ConfigError(
                f"model {config.name} has the {kind}s {_listed(names)}, its engine {_listed(found)}",
                fix="export again, or change config.pbtxt and the tensor contract",
            )
        for tensor in declared:
            tensor.dims[:] = _fitted_dims(f"{kind} {tensor.name} of {config.name}", tensor, found[tensor.name])


def _fitted_dims(what: str, declared: Any, engine: EngineTensor) -> list[int]:
    declared_type = model_config_pb2.DataType.Name(declared.data_type)
    engine_type = _DATA_TYPES.get(engine.type_name, engine.type_name)
    if declared_type != engine_type or not _dims_agree(declared.dims, engine.dims):
        raise ConfigError(
            f"{what} is {declared_type} {list(declared.dims)} in config.pbtxt, "
            f"{engine_type} {list(engine.dims)} in the engine",
            fix="export again, or change config.pbtxt and the tensor contract",
        )
    # Only sizes that are unknown in one of the two are left to choose.
    return [max(pair) for pair in zip(declared.dims, engine.dims, strict=True)]


def check_ensemble(ensemble: Config, models: Configs) -> None:
    """Check that the steps of an ensemble fit together: every tensor made once, before it is used, and of one type.

    Args:
        ensemble: configuration of the ensemble.
        models: configurations of the composing models by name.

    Raises:
        ConfigError: a step names a model or a tensor that does not exist, leaves out an input, or connects tensors of
            different types or sizes.
    """
    made = {tensor.name: tensor for tensor in ensemble.input}
    for step in ensemble.ensemble_scheduling.step:
        if step.model_name not in models:
            raise ConfigError(
                f"ensemble {ensemble.name} has the step {step.model_name!r}, which is no model of the repository",
                fix=f"choose one of {_listed(models)}",
            )
        model = models[step.model_name]
        if model.max_batch_size < ensemble.max_batch_size:
            raise ConfigError(
                f"step {model.name} takes batches of {model.max_batch_size}, "
                f"ensemble {ensemble.name} of {ensemble.max_batch_size}",
                fix="raise max_batch_size of the step",
            )
        _check_inputs(model, step.input_map, made)
        outputs = {tensor.name: tensor for tensor in model.output}
        for output, name in step.output_map.items():
            if output not in outputs or name in made:
                problem = "is made twice" if name in made else f"is no output of {model.name}"
                raise ConfigError(f"ensemble tensor {name} {problem}", fix=f"mend output_map of {model.name}")
            made[name] = outputs[output]
    for tensor in ensemble.output:
        _check_same(f"output {tensor.name} of {ensemble.name}", tensor, made.get(tensor.name))


def _check_inputs(model: Config, input_map: Mapping[str, str], made: Mapping[str, Any]) -> None:
    inputs = {tensor.name: tensor for tensor in model.input}
    required = {tensor.name for tensor in model.input if not tensor.optional}
    if unknown := sorted(input_map.keys() - inputs.keys()):
        raise ConfigError(f"{model.name} has no input {unknown[0]}", fix=f"mend input_map of {model.name}")
    if missing := sorted(required - input_map.keys()):
        raise ConfigError(
            f"input {missing[0]} of {model.name} gets nothing", fix=f"add it to input_map of {model.name}"
        )
    for name, source in input_map.items():
        _check_same(f"input {name} of {model.name}", inputs[name], made.get(source))
        if name in required and getattr(made[source], "optional", False):  # outputs have no such field
            raise ConfigError(
                f"input {name} of {model.name} is required, its source {source} is optional",
                fix="make both optional, or neither",
            )


def _check_same(what: str, wanted: Any, made: Any) -> None:
    if made is None:
        raise ConfigError(f"{what} comes from no step before it", fix="mend the steps and maps of the ensemble")
    if wanted.data_type != made.data_type or not _dims_agree(wanted.dims, made.dims):
        data_type = model_config_pb2.DataType.Name
        raise ConfigError(
            f"{what} is {data_type(wanted.data_type)} {list(wanted.dims)}, "
            f"what it is given is {data_type(made.data_type)} {list(made.dims)}",
            fix="give both the same type and sizes; engines must come from one export",
        )


def _dims_agree(some: Sequence[int], others: Sequence[int]) -> bool:
    pairs = zip(some, others, strict=False)
    return len(some) == len(others) and all(one == other or -1 in (one, other) for one, other in pairs)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
