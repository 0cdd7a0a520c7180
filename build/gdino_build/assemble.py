"""Put the sources of model_repository/ and the engines together into what Triton serves, with a manifest."""

import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gdino_build.engine import sha256_of
from gdino_build.serving import (
    ServingSettings,
    add_picture_warm_up,
    add_text_warm_up,
    set_queue,
    warm_up_files,
)
from gdino_build.triton_config import (
    CONFIG_FILE_NAME,
    Config,
    Configs,
    check_ensemble,
    read_config,
    set_parameters,
    write_config,
)
from gdino_core import contract
from gdino_core.errors import ConfigError
from gdino_core.manifest import MANIFEST_FILE_NAME
from gdino_core.settings import PreprocessSettings

ENGINE_MODELS = (contract.MODEL_TEXT_ENCODER, contract.MODEL_DETECTOR)
STEPS = (contract.MODEL_PREPROCESS, *ENGINE_MODELS, contract.MODEL_POSTPROCESS)
MODELS = (*STEPS, contract.MODEL_GROUNDING_DINO)
_VERSION = "1"
_PACKAGES = ("groundingdino-triton", "numpy", "onnx", "openvino", "torch", "tritonclient")


class Engines(Protocol):
    """What runs the text encoder and the detector: OpenVinoEngines or TensorRtPlans."""

    @property
    def largest_batch(self) -> int:
        """Most pictures that are computed at once."""

    @property
    def largest_batch_in_every_bucket(self) -> bool:
        """Whether each bucket is warmed up with it."""

    def configure(self, config: Config, serving: ServingSettings, preprocess: PreprocessSettings) -> None:
        """Write what the server must know of a model's engine."""

    def files(self, name: str) -> Mapping[str, Path]:
        """Files of a model's engine by their names in its version folder."""

    def record(self, name: str) -> dict[str, Any]:
        """What the manifest tells of a model's engine."""


@dataclass(frozen=True, kw_only=True)
class RepositoryPlan:
    """What one model repository is made of.

    Attributes:
        sources: the folder model_repository/.
        engines: of the text encoder and the detector.
        preprocess: sizes, buckets and limits, which all steps read.
        serving: queues, instances and warm-up.
        profile: of the build, as the manifest tells it; anything that JSON can hold.
        weights: what the engines were exported from, for the manifest, such as {"file": ..., "sha256": ...}.
    """

    sources: Path
    engines: Engines
    preprocess: PreprocessSettings
    serving: ServingSettings
    profile: Mapping[str, Any]
    weights: Mapping[str, Any]


def assemble_repository(plan: RepositoryPlan, repository: Path) -> Path:
    """Write a model repository; it takes the place of an older one only when it is whole.

    Args:
        plan: what to put into it.
        repository: folder to write, such as out/<profile>/repository.

    Returns:
        Path of its manifest.

    Raises:
        ConfigError: a config.pbtxt is wrong, or the models do not fit together.
        ExportError: an engine is missing or damaged.
    """
    partial = repository.with_name(f".{repository.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        configs = _finished_configs(plan)
        for name in MODELS:
            _write_model(plan, configs, name, partial / name)
        manifest = json.dumps(_manifest(plan, partial), indent=2) + "\n"
        (partial / MANIFEST_FILE_NAME).write_text(manifest, encoding="utf-8")
        _swap(partial, repository)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return repository / MANIFEST_FILE_NAME


def _finished_configs(plan: RepositoryPlan) -> Configs:
    configs = {name: read_config(plan.sources / name / CONFIG_FILE_NAME) for name in MODELS}
    version = {contract.CONTRACT_VERSION_PARAMETER: str(contract.CONTRACT_VERSION)}
    for config in configs.values():
        set_parameters(config, version)
    for name in STEPS:
        set_parameters(configs[name], plan.preprocess.to_parameters())
    for name in ENGINE_MODELS:
        plan.engines.configure(configs[name], plan.serving, plan.preprocess)
    configs[contract.MODEL_POSTPROCESS].max_batch_size = plan.preprocess.max_prompts
    for name in STEPS:
        set_queue(configs[name], plan.serving)
    configs[contract.MODEL_PREPROCESS].instance_group[0].count = plan.serving.count_instances()
    if plan.serving.warm_up:
        add_text_warm_up(configs[contract.MODEL_TEXT_ENCODER], plan.preprocess)
        add_picture_warm_up(
            configs[contract.MODEL_DETECTOR],
            plan.preprocess,
            largest_batch=plan.engines.largest_batch,
            in_every_bucket=plan.engines.largest_batch_in_every_bucket,
        )
    check_ensemble(configs[contract.MODEL_GROUNDING_DINO], configs)
    return configs


def _write_model(plan: RepositoryPlan, configs: Configs, name: str, folder: Path) -> None:
    source = plan.sources / name
    # What another backend than Python's runs has no use for a model.py.
    unused = () if configs[name].backend == "python" else ("*.py",)
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__", *unused))
    write_config(configs[name], folder / CONFIG_FILE_NAME, source / CONFIG_FILE_NAME)
    if name == contract.MODEL_DETECTOR and plan.serving.warm_up:
        for path, content in warm_up_files(plan.preprocess):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(content)
    # Git cannot keep an empty folder, and Triton does not serve a model without a version folder.
    (folder / _VERSION).mkdir(exist_ok=True)
    if name in ENGINE_MODELS:
        for file_name, engine in plan.engines.files(name).items():
            _link_or_copy(engine, folder / _VERSION / file_name)


def _link_or_copy(source: Path, target: Path) -> None:
    # Engines are replaced, never written in place, so a second name for the same bytes is safe and costs nothing.
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _manifest(plan: RepositoryPlan, repository: Path) -> dict[str, Any]:
    files = sorted(path for path in repository.rglob("*") if path.is_file())
    return {
        "contract_version": contract.CONTRACT_VERSION,
        "profile": dict(plan.profile),
        "weights": dict(plan.weights),
        "engines": {name: plan.engines.record(name) for name in ENGINE_MODELS},
        "versions": {"python": platform.python_version()} | {name: _package_version(name) for name in _PACKAGES},
        "files": {
            path.relative_to(repository).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
            for path in files
        },
    }


def _package_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _swap(partial: Path, repository: Path) -> None:
    if repository.exists() and not (repository / MANIFEST_FILE_NAME).is_file():
        raise ConfigError(
            f"{repository} exists and was not written by this program: it has no {MANIFEST_FILE_NAME}",
            fix="move it away, or choose another folder",
        )
    old = partial.with_suffix(".old")
    shutil.rmtree(old, ignore_errors=True)
    if repository.exists():
        repository.rename(old)
    partial.rename(repository)
    shutil.rmtree(old, ignore_errors=True)
