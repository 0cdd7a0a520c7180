"""Build profiles: what to build, from which checkpoint, for which engine; read from profiles/*.toml.

A profile may extend another: it then has that one's tables, but for the keys that it writes itself.
"""

from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from gdino_build.model import ARCHITECTURES, ModelConfig
from gdino_build.original_config import read_architecture
from gdino_build.precision import PRECISIONS
from gdino_build.precision.calibration_settings import CalibrationSettings
from gdino_build.security.settings import SecuritySettings
from gdino_build.serving import ServingSettings
from gdino_build.toml_tables import check_table, read_toml, toml_names
from gdino_core.contract import STRIDE
from gdino_core.errors import ConfigError
from gdino_core.openvino_engine import OpenVinoSettings
from gdino_core.settings import PreprocessSettings

RUNTIMES = ("openvino", "tensorrt")
MAX_BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One target to build.

    Attributes:
        name: of the file, and of the folder below out/.
        architecture: sizes of the model: one of ARCHITECTURES (`architecture`), or what a configuration file of the
            original says (`config`, a path like that of the checkpoint).
        checkpoint: weights, a file or a folder of Hugging Face's, relative to the working directory, which make keeps
            at the repository root.
        runtime: what runs the engine.
        precision: of the graphs, one of PRECISIONS.
        threads: of each engine; 0 leaves the choice to the runtime.
        streams: batches that run side by side on a CPU when several wait; 0: as many as threads.
        max_batch_size: most pictures in one inference.
        compiled_operator: whether deformable attention is compiled for OpenVINO where there is a C++ compiler; without,
            the engine is slower and takes no library of its own.
        accept_over_gate: why a variant that loses too much, or is too large, is served all the same; "" refuses it.
        workspace_mib: most GPU memory that a kernel of TensorRT may take for its intermediate results.
        calibration: pictures and method for INT8; None where there is no [calibration].
        preprocess: sizes, buckets and limits of the preprocessing.
        serving: queues, instances and warm-up of the server.
        security: where the server listens, and whom it answers.
        verify_sizes: padded sizes (H, W) at which `verify` compares stages.
    """

    name: str
    architecture: ModelConfig
    checkpoint: Path
    runtime: str
    precision: str
    threads: int
    streams: int
    max_batch_size: int
    compiled_operator: bool
    accept_over_gate: str
    workspace_mib: int
    calibration: CalibrationSettings | None
    preprocess: PreprocessSettings
    serving: ServingSettings
    security: SecuritySettings
    verify_sizes: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        _check_choice("[engine] runtime", self.runtime, RUNTIMES)
        _check_choice("[engine] precision", self.precision, PRECISIONS)
        if not 1 <= self.max_batch_size <= MAX_BATCH_SIZE:
            raise ConfigError(f"[engine] max_batch_size is {self.max_batch_size}", fix=f"choose 1 to {MAX_BATCH_SIZE}")
        if self.threads < 0:
            raise ConfigError(f"[engine] threads is {self.threads}", fix="choose 0 (all cores) or more")
        if self.streams < 0:
            raise ConfigError(f"[engine] streams is {self.streams}", fix="choose 1, or 0 (one a thread)")
        if self.workspace_mib < 1:
            raise ConfigError(f"[engine] workspace_mib is {self.workspace_mib}", fix="choose 1 or more; 4096 is usual")
        if self.precision == "int8" and self.calibration is None:
            raise ConfigError(
                "INT8 is calibrated with pictures, and the profile names none",
                fix="add [calibration]; see demo-cpu-int8",
            )
        self._check_gpus()
        if not self.verify_sizes:
            raise ConfigError("[verify] sizes is empty", fix="name at least one [height, width]")
        for height, width in self.verify_sizes:
            if height % STRIDE or width % STRIDE or min(height, width) < STRIDE:
                raise ConfigError(
                    f"[verify] size {height}x{width} is not made of multiples of {STRIDE}",
                    fix="round both sides up",
                )

    def _check_gpus(self) -> None:
        if self.runtime == "tensorrt" and self.preprocess.max_prompts > self.max_batch_size:
            raise ConfigError(
                f"[preprocess] max_prompts is {self.preprocess.max_prompts}, [engine] max_batch_size "
                f"{self.max_batch_size}: TensorRT runs the prompts of a request in one batch",
                fix=f"set max_prompts = {self.max_batch_size}, or a larger max_batch_size",
            )
        if self.runtime != "tensorrt" and (self.serving.text_encoder_gpus or self.serving.detector_gpus):
            raise ConfigError(
                f"[serving] names GPUs, and the runtime is {self.runtime}", fix='choose runtime = "tensorrt"'
            )

    @property
    def openvino(self) -> OpenVinoSettings:
        """How the server compiles the engines on a CPU."""
        return OpenVinoSettings(threads=self.threads, streams=self.streams, max_batch_size=self.max_batch_size)

    def to_dict(self) -> dict[str, Any]:
        """The profile as the manifest tells it."""
        calibration = self.calibration and {name: str(value) for name, value in asdict(self.calibration).items()}
        return asdict(self) | {"checkpoint": str(self.checkpoint), "calibration": calibration}


def profile_names() -> list[str]:
    """Names that `load_profile` takes."""
    return toml_names(resources.files("gdino_build") / "profiles")


def load_profile(name: str) -> Profile:
    """Read and check a profile.

    Args:
        name: of a shipped profile, or the path of a TOML file of the user's own.

    Raises:
        ConfigError: no such profile, no TOML, a key that is missing, unknown or of a wrong value.
    """
    return _profile_from(Path(name).name.removesuffix(".toml"), read_tables(name))


def read_tables(name: str, extending: tuple[str, ...] = ()) -> dict[str, Any]:
    """The tables of a profile, with those that it extends; `extending` are the profiles that led to it.

    Raises:
        ConfigError: there is no such profile, it is no TOML, or it extends itself.
    """
    if name in extending:
        raise ConfigError(f"profile {name} extends itself", fix="let it extend another, or none")
    shipped = resources.files("gdino_build") / "profiles" / f"{name}.toml"
    source = Path(name) if name.endswith(".toml") else shipped
    if not source.is_file():
        raise ConfigError(
            f"there is no profile {name}", fix=f"choose one of {', '.join(profile_names())}, or a .toml file"
        )
    content = read_toml(source, f"profile {name}", "see the shipped profiles for examples")
    base = content.pop("extends", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise ConfigError(f"profile {name} extends {base!r}", fix='write the name of a profile: extends = "swint-cpu"')
    tables = read_tables(base, (*extending, name))
    for key, table in content.items():
        extended = tables.get(key)
        if key != "model" and isinstance(table, dict) and isinstance(extended, dict):
            tables[key] = {**extended, **table}
        else:  # a model is named as a whole
            tables[key] = table
    return tables


def _profile_from(name: str, content: dict[str, Any]) -> Profile:
    model = _Section(content, "model", {_architecture_key(content): str, "checkpoint": str})
    engine = _Section(
        content,
        "engine",
        {"runtime": str, "precision": str, "threads": int, "max_batch_size": int},
        {"streams": 1, "compiled_operator": True, "accept_over_gate": "", "workspace_mib": 4096},
    )
    preprocess = _Section(
        content,
        "preprocess",
        {
            "short_side": int,
            "long_side": int,
            "resolution_buckets": list,
            "text_buckets": list,
            "max_image_bytes": int,
            "max_image_pixels": int,
        },
        {"max_prompts": 64},
    )
    verify = _Section(content, "verify", {"sizes": list})
    if unknown := set(content) - {
        "model",
        "engine",
        "calibration",
        "preprocess",
        "serving",
        "security",
        "verify",
        "deploy",
    }:
        raise ConfigError(f"profile {name} has an unknown section [{sorted(unknown)[0]}]", fix="remove it")
    return Profile(
        name=name,
        architecture=_architecture(model),
        checkpoint=Path(model["checkpoint"]),
        runtime=engine["runtime"],
        precision=engine["precision"],
        threads=engine["threads"],
        streams=engine["streams"],
        max_batch_size=engine["max_batch_size"],
        compiled_operator=engine["compiled_operator"],
        accept_over_gate=engine["accept_over_gate"],
        workspace_mib=engine["workspace_mib"],
        calibration=_calibration(content),
        preprocess=PreprocessSettings(
            short_side=preprocess["short_side"],
            long_side=preprocess["long_side"],
            resolution_buckets=preprocess.pairs("resolution_buckets"),
            text_buckets=preprocess.numbers("text_buckets"),
            max_prompts=preprocess["max_prompts"],
            max_image_bytes=preprocess["max_image_bytes"],
            max_image_pixels=preprocess["max_image_pixels"],
        ),
        serving=ServingSettings(**_optional_table(content, "serving", asdict(ServingSettings()))),
        security=SecuritySettings(**_optional_table(content, "security", asdict(SecuritySettings()))),
        verify_sizes=verify.pairs("sizes"),
    )


def _architecture_key(content: dict[str, Any]) -> str:
    """The key of [model] that tells the sizes: `architecture`, or `config` in its place."""
    table = content.get("model")
    if not isinstance(table, dict) or "config" not in table:
        return "architecture"
    if "architecture" in table:
        raise ConfigError("[model] has both architecture and config", fix="keep the one that the checkpoint is of")
    return "config"


def _architecture(model: "_Section") -> ModelConfig:
    if "config" in model:
        return read_architecture(Path(model["config"]))
    _check_choice("[model] architecture", model["architecture"], tuple(ARCHITECTURES))
    return ARCHITECTURES[model["architecture"]]


def _calibration(content: dict[str, Any]) -> CalibrationSettings | None:
    if "calibration" not in content:
        return None
    types: dict[str, type] = {"images": str, "annotations": str}
    table = _Section(content, "calibration", types, {"pictures": 64, "method": "min-max", "seed": 0})
    return CalibrationSettings(
        images=Path(table["images"]),
        annotations=Path(table["annotations"]),
        pictures=table["pictures"],
        method=table["method"],
        seed=table["seed"],
    )


def _optional_table(content: dict[str, Any], name: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """A table that need not be there, whose keys all have defaults; a tuple of numbers is a list there."""
    types = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    table = _Section({name: {}} | content, name, {}, types)
    return {key: table.numbers(key) if isinstance(defaults[key], tuple) else table[key] for key in defaults}


class _Section:
    """One table of a profile, with the keys and types that it must have, and those that have a default."""

    def __init__(
        self, content: dict[str, Any], name: str, types: dict[str, type], defaults: dict[str, Any] | None = None
    ) -> None:
        table = content.get(name)
        if not isinstance(table, dict):
            raise ConfigError(f"the profile lacks the section [{name}]", fix="see the shipped profiles for examples")
        defaults = defaults or {}
        table = {**defaults, **table}
        check_table(name, table, types | {key: type(value) for key, value in defaults.items()})
        self._name, self._table = name, table

    def __contains__(self, key: str) -> bool:
        return key in self._table

    def __getitem__(self, key: str) -> Any:
        return self._table[key]

    def numbers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers."""
        for item in self._table[key]:
            if type(item) is not int:
                raise ConfigError(f"[{self._name}] {key} holds {item!r}", fix="write whole numbers such as 16")
        return tuple(self._table[key])

    def pairs(self, key: str) -> tuple[tuple[int, int], ...]:
        """A list of [height, width] pairs."""
        pairs = []
        for item in self._table[key]:
            if not (isinstance(item, list) and len(item) == 2 and all(type(side) is int for side in item)):
                raise ConfigError(f"[{self._name}] {key} holds {item!r}", fix="write pairs such as [800, 1216]")
            pairs.append((item[0], item[1]))
        return tuple(pairs)


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{what} is {value!r}", fix=f"choose one of {', '.join(choices)}")
