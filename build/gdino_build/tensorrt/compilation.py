"""Compile one graph into a plan, in the process that calls; `plan` gives each plan a process of its own."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gdino_build.tensorrt.build_log import open_build_log
from gdino_build.tensorrt.flavour import RTX, Flavour, find_flavour
from gdino_build.tensorrt.manifest import PlanTensor
from gdino_build.tensorrt.optimisation_profiles import OptimisationProfile, buckets_to_profiles
from gdino_build.tensorrt.parsing import input_dims, list_tensors, parse_onnx
from gdino_build.tensorrt.products import check_products, count_products
from gdino_build.tensorrt.progress import open_progress
from gdino_build.tensorrt.settings import PlanSettings
from gdino_build.tensorrt.timing_cache import cache_path, read_cache, write_cache
from gdino_core.errors import ExportError

_BAR = "{desc}{n_fmt}/{total_fmt} |{bar}| {elapsed}"  # no rate: phases last from milliseconds to minutes

# What TensorRT says when intermediate results of the largest batch do not fit.
_TOO_LITTLE_WORKSPACE = ("OutOfMemory", "workspace limit")


@dataclass(frozen=True, kw_only=True)
class CompileJob:
    """One plan to compile.

    Attributes:
        onnx_path: the graph.
        plan_path: the plan to write.
        log_path: gets what TensorRT says.
        flavour_name: of the TensorRT that compiles.
        settings: what the plan is compiled for.
    """

    onnx_path: Path
    plan_path: Path
    log_path: Path
    flavour_name: str
    settings: PlanSettings


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What the compiler knows of a plan; see PlanManifest."""

    products: Mapping[str, int]
    inputs: Mapping[str, PlanTensor]
    outputs: Mapping[str, PlanTensor]
    profiles: Sequence[OptimisationProfile]


def compile_plan(job: CompileJob) -> Compiled:
    """Compile a graph and write the plan.

    Raises:
        ConfigError: the graph has products in a type that the GPU lacks.
        ExportError: TensorRT cannot read the graph or cannot compile it.
    """
    flavour = find_flavour(job.flavour_name)
    with (
        job.log_path.open("w", encoding="utf-8") as file,
        tqdm(bar_format=_BAR, disable=None, leave=False) as bar,
    ):
        log = open_build_log(flavour, file)
        builder = flavour.module.Builder(log)
        network = parse_onnx(flavour, builder, log, job.onnx_path)
        products = count_products(flavour, network)
        check_products(flavour, job.settings.capability, network)
        profiles = buckets_to_profiles(input_dims(network), job.settings.buckets)
        config = configure(flavour, builder, job.settings, profiles)
        progress = open_progress(flavour, bar)
        config.progress_monitor = progress
        cache = cache_path(job.settings.timing_caches, flavour, job.settings.capability)
        _use_timing_cache(config, read_cache(cache))
        log.errors.clear()
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise _not_compiled(job, flavour, " | ".join(log.errors))
        job.plan_path.write_bytes(plan)
        write_cache(cache, _taken_timings(config))
    inputs, outputs = list_tensors(network)
    return Compiled(products=products, inputs=inputs, outputs=outputs, profiles=profiles)


def configure(flavour: Flavour, builder: Any, settings: PlanSettings, profiles: Sequence[OptimisationProfile]) -> Any:
    """The module's IBuilderConfig: for which GPU, within which memory and for which sizes to compile.

    Raises:
        ExportError: TensorRT refuses a profile.
    """
    trt = flavour.module
    config = builder.create_builder_config()
    # On by default, it rounds the factors of FP32 products to 10 bits, those that FP16 variants keep FP32 included.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    if flavour.name == RTX:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{settings.capability}"), 0)
    for ranges in profiles:
        profile = builder.create_optimization_profile()
        for name, sizes in ranges.items():
            profile.set_shape(name, sizes.min, sizes.opt, sizes.max)
        if config.add_optimization_profile(profile) < 0:
            raise ExportError(f"{flavour} refuses the optimisation profile {ranges}", fix="see the buckets")
    return config


def _not_compiled(job: CompileJob, flavour: Flavour, reason: str) -> ExportError:
    fix = "the operators that the message names are in the graph: gdino-build inspect counts them"
    if any(text in reason for text in _TOO_LITTLE_WORKSPACE):
        fix = f"give it a workspace above {job.settings.workspace_bytes} bytes, or lower max_batch_size"
    return ExportError(
        f"{flavour} cannot compile {job.onnx_path} for SM={job.settings.capability}: {reason or 'it gives no reason'}",
        fix=fix,
    )


def _use_timing_cache(config: Any, timings: bytes) -> None:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # TensorRT-RTX: it does nothing there
        if not config.set_timing_cache(config.create_timing_cache(timings), False):  # False: not those of another GPU
            config.set_timing_cache(config.create_timing_cache(b""), False)


def _taken_timings(config: Any) -> bytes:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return bytes(config.get_timing_cache().serialize())
