"""Make a plan of an ONNX graph: the .plan, its manifest as .json and what TensorRT said as .log."""

import os
import shutil
import time
from pathlib import Path

from gdino_build.engine import sha256_of
from gdino_build.tensorrt.compilation import CompileJob
from gdino_build.tensorrt.compile_process import compile_in_process
from gdino_build.tensorrt.flavour import Flavour
from gdino_build.tensorrt.manifest import PlanManifest, put_in_place, read_manifest
from gdino_build.tensorrt.settings import PlanSettings
from gdino_core.errors import ExportError


def plan_folder(engines: Path, capability: int) -> Path:
    """Where the plans of a compute capability lie, such as out/<profile>/engine/sm89."""
    return engines / f"sm{capability}"


def onnx_to_plan(onnx_path: Path, plan_path: Path, settings: PlanSettings, flavour: Flavour) -> PlanManifest:
    """Compile an ONNX file into a plan, in a process of its own.

    Args:
        onnx_path: a cleaned graph; the types in it are the precision of the plan.
        plan_path: the .plan to write; it and its manifest appear only when both are whole. The log stays also if the
            graph cannot be compiled.
        settings: what to compile for.
        flavour: that compiles.

    Raises:
        ConfigError: the graph has products in a type that the GPU lacks.
        ExportError: there is no such file, or TensorRT cannot compile it.
    """
    if not onnx_path.is_file():
        raise ExportError(f"{onnx_path} does not exist", fix="run the stages before this one: export, clean, precision")
    started = time.monotonic()
    onnx_sha256 = sha256_of(onnx_path)
    partial = plan_path.parent / f".{plan_path.stem}.partial"
    shutil.rmtree(partial, ignore_errors=True)  # of a build that was killed
    partial.mkdir(parents=True)
    job = CompileJob(
        onnx_path=onnx_path,
        plan_path=partial / plan_path.name,
        log_path=partial / plan_path.with_suffix(".log").name,
        flavour_name=flavour.name,
        settings=settings,
    )
    try:
        try:
            compiled, peak_memory_bytes = compile_in_process(job)
        except ExportError:
            _keep_log(job.log_path, plan_path)
            raise
        manifest = PlanManifest(
            rebuild_command=settings.rebuild_command,
            onnx_sha256=onnx_sha256,
            flavour=flavour.name,
            version=flavour.version,
            capability=settings.capability,
            products=compiled.products,
            inputs=compiled.inputs,
            outputs=compiled.outputs,
            buckets=settings.buckets,
            profiles=tuple(compiled.profiles),
            workspace_bytes=settings.workspace_bytes,
            build_seconds=round(time.monotonic() - started, 1),
            peak_memory_bytes=peak_memory_bytes,
            plan_bytes=job.plan_path.stat().st_size,
            plan_sha256=sha256_of(job.plan_path),
        )
        put_in_place(job.plan_path, manifest, plan_path)
        _keep_log(job.log_path, plan_path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def current_manifest(onnx_path: Path, plan_path: Path, settings: PlanSettings, flavour: Flavour) -> PlanManifest | None:
    """The manifest of a plan that is there already and that compiling would only make again; otherwise None."""
    try:
        manifest = read_manifest(plan_path)
    except ExportError:
        return None
    made_for = (manifest.flavour, manifest.version, manifest.capability, manifest.buckets, manifest.workspace_bytes)
    wanted = (flavour.name, flavour.version, settings.capability, settings.buckets, settings.workspace_bytes)
    is_current = made_for == wanted and onnx_path.is_file() and manifest.onnx_sha256 == sha256_of(onnx_path)
    return manifest if is_current else None


def _keep_log(log_path: Path, plan_path: Path) -> None:
    if log_path.is_file():
        os.replace(log_path, plan_path.with_suffix(".log"))
