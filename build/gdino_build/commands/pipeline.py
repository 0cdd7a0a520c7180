"""From a checkpoint to a repository that is served: the stages, in their order."""

import argparse
import json
import os
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from gdino_build.checkpoint import weights_files
from gdino_build.commands.security import add_security, security_of
from gdino_build.commands.stage import (
    WEIGHTS_FILE_NAME,
    Commands,
    add_random_weights,
    add_stage,
    check_files,
    folder_of,
    model_of,
)
from gdino_build.model import DEMO
from gdino_build.precision import GRAPHS
from gdino_build.profile import Profile
from gdino_build.random_weights import RANDOM_WEIGHTS_SEED, random_state_dict
from gdino_build.tensorrt.flavour import FLAVOURS
from gdino_core import contract
from gdino_core.errors import ConfigError

if TYPE_CHECKING:
    from gdino_build.assemble import Engines
    from gdino_build.parity import Arrays


def register(commands: Commands) -> None:
    """Add these commands."""
    text = "note which weights are used, so that make rebuilds when they change"
    add_random_weights(add_stage(commands, "weights-stamp", _weights_stamp, text))
    save = add_stage(commands, "save-random", _save_random, "write the random weights to a .safetensors file")
    save.add_argument("file", type=Path)
    add_random_weights(add_stage(commands, "export", _export, "checkpoint to ONNX: text encoder and detector"))
    add_stage(commands, "clean", _clean, "clean the exported graphs")
    text = "cleaned graphs to those of the profile's precision; INT8 is calibrated"
    add_stage(commands, "precision", _precision, text)
    text = "graphs of the profile's precision to engines of its runtime"
    _add_tensorrt(add_stage(commands, "engine", _engine, text))
    _add_tensorrt(add_stage(commands, "engines", _engines, "graphs of the profile's precision to TensorRT plans"))
    text = "model_repository/ sources and engines to a Triton model repository"
    add_stage(commands, "assemble", _assemble, text)
    serve = add_stage(commands, "serve", _serve, "serve the repository in the foreground")
    add_security(serve)


def _add_tensorrt(stage: argparse.ArgumentParser) -> None:
    stage.add_argument("--sm", metavar="89", help="compute capability to compile for (default: that of the GPU here)")
    stage.add_argument("--tensorrt", choices=FLAVOURS, help="which to compile with (default: tensorrt if installed)")


def _weights_of(profile: Profile, arguments: argparse.Namespace) -> str:
    """One line that changes when the graphs must be exported again."""
    made_with = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnx", "openvino"))
    if arguments.random_weights:
        return f"{profile.architecture}, random, seed {RANDOM_WEIGHTS_SEED}, {made_with}"
    files = [(file, file.stat()) for file in weights_files(profile.checkpoint)]
    changed = ", ".join(f"{file}, {stat.st_size} bytes, modified {stat.st_mtime_ns}" for file, stat in files)
    return f"{profile.architecture}, {changed}, {made_with}"


def _weights_stamp(profile: Profile, arguments: argparse.Namespace) -> None:
    path = folder_of(profile, arguments) / "weights.txt"
    wanted = _weights_of(profile, arguments) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != wanted:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted, encoding="utf-8")


def _save_random(profile: Profile, arguments: argparse.Namespace) -> None:
    import safetensors.torch

    arguments.file.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(random_state_dict(profile.architecture), arguments.file)


def _export(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.engine import sha256_of
    from gdino_build.export import export_detector, export_text_encoder

    folder = folder_of(profile, arguments) / "onnx" / "raw"
    weights: dict[str, object] = {"random_seed": RANDOM_WEIGHTS_SEED}
    model = model_of(profile, arguments)
    if not arguments.random_weights:
        hashes = " ".join(map(sha256_of, weights_files(profile.checkpoint)))
        weights = {"file": str(profile.checkpoint), "sha256": hashes}
    # Gone while the graphs change: a broken-off export is exported again, not told to come from other weights.
    (folder / WEIGHTS_FILE_NAME).unlink(missing_ok=True)
    export_text_encoder(model, folder / f"{contract.MODEL_TEXT_ENCODER}.onnx")
    export_detector(model, folder / f"{contract.MODEL_DETECTOR}.onnx")
    (folder / WEIGHTS_FILE_NAME).write_text(json.dumps(weights) + "\n", encoding="utf-8")


def _clean(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.clean import clean_file

    folder = folder_of(profile, arguments) / "onnx"
    check_files([folder / "raw" / f"{name}.onnx" for name in GRAPHS])
    for name in GRAPHS:
        clean_file(folder / "raw" / f"{name}.onnx", folder / f"{name}.onnx")


def _precision(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.precision.variants import write_variant

    folder = folder_of(profile, arguments) / "onnx"
    check_files([folder / f"{name}.onnx" for name in GRAPHS])
    target = folder / profile.precision
    if profile.precision != "int8":
        write_variant(folder, target, profile.precision)
        return
    cases, calibration = _calibration_cases(profile, folder)
    write_variant(
        folder,
        target,
        "int8",
        thresholds=_thresholds(folder, cases, profile),
        int8_rest="fp16" if profile.runtime == "tensorrt" else "fp32",
        calibration=calibration,
    )


def _calibration_cases(profile: Profile, folder: Path) -> "tuple[Sequence[Arrays], dict[str, object]]":
    """Pictures and prompts for INT8, and what the record says of them."""
    from gdino_build.accuracy.dataset import load_coco
    from gdino_build.precision.calibration_data import draw_cases
    from gdino_build.verify import picture_cases

    settings = profile.calibration
    assert settings is not None  # Profile checks it
    if "random_seed" in json.loads((folder / "raw" / WEIGHTS_FILE_NAME).read_text(encoding="utf-8")):
        # Nothing is accurate with random weights; drawn pictures give ranges as real as the answers.
        cases = picture_cases(profile.verify_sizes[:1], profile.preprocess.text_buckets)
        return cases, {"pictures": len(cases), "method": settings.method, "drawn": True}
    dataset = load_coco(settings.annotations, settings.images)
    cases = draw_cases(dataset, profile.preprocess, settings.pictures, settings.seed)
    told = {"pictures": len(cases), "method": settings.method, "seed": settings.seed}
    return cases, told | {"annotations": str(settings.annotations), "annotations_sha256": dataset.sha256}


def _thresholds(folder: Path, cases: "Sequence[Arrays]", profile: Profile) -> dict[str, dict[str, float]]:
    from tqdm import tqdm

    from gdino_build.precision.calibration_data import find_thresholds

    assert profile.calibration is not None
    progress = partial(tqdm, desc="calibrate", unit="picture", disable=None)
    return find_thresholds(folder, cases, profile.calibration.method, progress)


def _engine(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.compiled_operator import compile_operator
    from gdino_build.engine import onnx_to_openvino

    if profile.runtime == "tensorrt":
        _engines(profile, arguments)
        return
    folder = folder_of(profile, arguments)
    operator = compile_operator(arguments.out / "operators") if profile.compiled_operator else None
    for name in GRAPHS:
        graph = folder / "onnx" / profile.precision / f"{name}.onnx"
        onnx_to_openvino(graph, folder / "engine" / f"{name}.xml", operator)


def _engines(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.tensorrt.capability import choose_capability, read_gpu_capability
    from gdino_build.tensorrt.flavour import find_flavour
    from gdino_build.tensorrt.optimisation_profiles import Buckets
    from gdino_build.tensorrt.plan import current_manifest, onnx_to_plan, plan_folder
    from gdino_build.tensorrt.settings import PlanSettings

    if profile.runtime != "tensorrt":
        raise ConfigError(
            f"profile {profile.name} has the runtime {profile.runtime}",
            fix='choose gpu-fp16 or another with runtime = "tensorrt"; make repository builds this one',
        )
    folder = folder_of(profile, arguments)
    flavour = find_flavour(arguments.tensorrt)
    settings = PlanSettings(
        profile_name=profile.name,
        capability=choose_capability(arguments.sm, read_gpu_capability(), flavour),
        buckets=Buckets(
            resolutions=profile.preprocess.resolution_buckets,
            tokens=profile.preprocess.text_buckets,
            max_batch_size=profile.max_batch_size,
        ),
        workspace_bytes=profile.workspace_mib << 20,
        timing_caches=arguments.out / "timing-caches",
    )
    print(f"{flavour} compiles for SM {settings.capability}")
    plans = plan_folder(folder / "engine", settings.capability)
    for name in GRAPHS:
        graph, plan = folder / "onnx" / profile.precision / f"{name}.onnx", plans / f"{name}.plan"
        manifest = current_manifest(graph, plan, settings, flavour)
        if manifest is None:
            manifest = onnx_to_plan(graph, plan, settings, flavour)
        print(
            f"{plan}: {manifest.plan_bytes / 2**20:.0f} MiB, {len(manifest.profiles)} profiles, "
            f"{manifest.build_seconds:.0f} s, peak memory {manifest.peak_memory_bytes / 2**30:.1f} GiB"
        )


def _assemble(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.accuracy.gate_check import check_gates
    from gdino_build.assemble import RepositoryPlan, assemble_repository

    folder = folder_of(profile, arguments)
    exported = folder / "onnx" / "raw" / WEIGHTS_FILE_NAME
    check_files([exported])
    for accepted in check_gates(
        out=arguments.out,
        graphs=folder / "onnx" / profile.precision,
        fp32_graphs=folder / "onnx",
        precision=profile.precision,
        is_demo=profile.architecture == DEMO,
        accepted=profile.accept_over_gate,
    ):
        print(f"accepted, because {profile.accept_over_gate}: {accepted}")
    plan = RepositoryPlan(
        sources=Path("model_repository"),
        engines=_engines_of(profile, folder),
        preprocess=profile.preprocess,
        serving=profile.serving,
        profile=profile.to_dict(),
        weights=json.loads(exported.read_text(encoding="utf-8")),
    )
    print(f"wrote {assemble_repository(plan, folder / 'repository')}")


def _engines_of(profile: Profile, folder: Path) -> "Engines":
    from gdino_build.engine import read_record
    from gdino_build.memory.plan import check_plan, read_plan
    from gdino_build.openvino_engines import OpenVinoEngines
    from gdino_build.tensorrt.repository_plans import TensorRtPlans

    if profile.runtime == "tensorrt":
        return TensorRtPlans(
            folder=folder / "engine",
            graphs=folder / "onnx" / profile.precision,
            max_batch_size=profile.max_batch_size,
        )
    memory = read_plan(folder)
    detector = folder / "engine" / f"{contract.MODEL_DETECTOR}.xml"
    if memory and memory.is_of(read_record(detector).onnx_sha256, profile.openvino.to_parameters()):
        check_plan(memory, profile.max_batch_size)
    return OpenVinoEngines(folder=folder / "engine", settings=profile.openvino)


def _serve(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.deployment.server_record import recorded_server
    from gdino_build.engine import sha256_of
    from gdino_build.security.access import open_access
    from gdino_build.serve import DRAIN_TIMEOUT_S, serve
    from gdino_build.server_ports import ServerPorts
    from gdino_core.manifest import MANIFEST_FILE_NAME

    if profile.runtime != "openvino":
        raise ConfigError(
            f"the embedded server cannot run profile {profile.name}: it has no {profile.runtime} backend",
            fix="serve its repository with the image of docker/, on a machine with a GPU",
        )
    folder = folder_of(profile, arguments)
    manifest = folder / "repository" / MANIFEST_FILE_NAME
    check_files([manifest])
    ports = ServerPorts.from_environment(os.environ)
    settings = security_of(profile, arguments)
    for exposure in settings.exposures():
        print(f"accepted, because {settings.accept_exposed}: {exposure}")
    with recorded_server(folder, sha256_of(manifest), ports):
        serve(
            folder / "repository",
            ports=ports,
            access=open_access(settings),
            log_file=folder / "server.log",
            cache_bytes=profile.serving.cache_mib << 20,
            drain_timeout_s=max(DRAIN_TIMEOUT_S, profile.serving.queue_timeout_ms / 1000),
        )
