"""Put the sources of model_repository/ and the engines together into what Triton serves, with a manifest."""

import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gdino_build.engine import engine_interface, read_record, sha256_of
from gdino_build.serving import (
    ServingSettings,
    add_picture_warm_up,
    add_text_warm_up,
    set_batches,
    set_queue,
    warm_up_files,
)
from gdino_build.triton_config import (
    CONFIG_FILE_NAME,
    Configs,
    check_ensemble,
    fit_to_engine,
    read_config,
    set_parameters,
    write_config,
)
from gdino_core import contract
from gdino_core.errors import ConfigError
from gdino_core.manifest import MANIFEST_FILE_NAME
from gdino_core.openvino_engine import ENGINE_FILE_NAME, OpenVinoSettings
from gdino_core.settings import PreprocessSettings

ENGINE_MODELS = (contract.MODEL_TEXT_ENCODER, contract.MODEL_DETECTOR)
STEPS = (contract.MODEL_PREPROCESS, *ENGINE_MODELS, contract.MODEL_POSTPROCESS)
MODELS = (*STEPS, contract.MODEL_GROUNDING_DINO)
_VERSION = "1"
_PACKAGES = ("groundingdino-triton", "numpy", "onnx", "openvino", "torch", "tritonclient")


@dataclass(frozen=True, kw_only=True)
class RepositoryPlan:
    """What one model repository is made of.

    Attributes:
        sources: the folder model_repository/.
        engines: folder with text_encoder.xml and detector.xml, each with its .bin and .json.
        preprocess: sizes, buckets and limits, which all steps read.
        openvino: how the server compiles the engines.
        serving: queues, instances and warm-up.
        profile: of the build, as the manifest tells it; anything that JSON can hold.
        weights: what the engines were exported from, for the manifest, such as {"file": ..., "sha256": ...}.
    """

    sources: Path
    engines: Path
    preprocess: PreprocessSettings
    openvino: OpenVinoSettings
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
        set_parameters(configs[name], plan.openvino.to_parameters())
        set_batches(configs[name], plan.serving, plan.openvino.max_batch_size, plan.preprocess.max_prompts)
        fit_to_engine(configs[name], engine_interface(_engine(plan, name)))
    configs[contract.MODEL_POSTPROCESS].max_batch_size = plan.preprocess.max_prompts
    for name in STEPS:
        set_queue(configs[name], plan.serving)
    configs[contract.MODEL_PREPROCESS].instance_group[0].count = plan.serving.count_instances()
    if plan.serving.warm_up:
        add_text_warm_up(configs[contract.MODEL_TEXT_ENCODER], plan.preprocess)
        add_picture_warm_up(configs[contract.MODEL_DETECTOR], plan.preprocess, plan.openvino)
    check_ensemble(configs[contract.MODEL_GROUNDING_DINO], configs)
    return configs


def _engine(plan: RepositoryPlan, name: str) -> Path:
    return plan.engines / f"{name}.xml"


def _write_model(plan: RepositoryPlan, configs: Configs, name: str, folder: Path) -> None:
    source = plan.sources / name
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"))
    write_config(configs[name], folder / CONFIG_FILE_NAME, source / CONFIG_FILE_NAME)
    if name in ENGINE_MODELS:
        for suffix in (".xml", ".bin"):
            target = (folder / _VERSION / ENGINE_FILE_NAME).with_suffix(suffix)
            _link_or_copy(_engine(plan, name).with_suffix(suffix), target)
    if name == contract.MODEL_DETECTOR and plan.serving.warm_up:
        for path, content in warm_up_files(plan.preprocess):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(content)
    # Git cannot keep an empty folder, and Triton does not serve a model without a version folder.
    (folder / _VERSION).mkdir(exist_ok=True)


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
        "engines": {name: asdict(read_record(_engine(plan, name))) for name in ENGINE_MODELS},
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
