"""Whether a server fits the memory of a machine."""

import argparse
import math
from functools import partial

from gdino_build.commands.stage import Commands, above_zero, add_stage, check_files, folder_of
from gdino_build.profile import Profile
from gdino_build.whole_file import write_json
from gdino_core import contract
from gdino_core.errors import ConfigError


def register(commands: Commands) -> None:
    """Add this command."""
    text = "measure memory by bucket and batch, and refuse a profile that does not fit"
    plan = add_stage(commands, "plan-memory", _plan_memory, text)
    plan.add_argument(
        "--memory-gib", type=above_zero, help="of the machine to plan for (default: this one, or its container)"
    )


def _plan_memory(profile: Profile, arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from gdino_build.engine import read_record
    from gdino_build.machine import memory_limit_bytes
    from gdino_build.memory.cost import fit_costs
    from gdino_build.memory.measure import batches_to_measure, measure_detector, measure_rest
    from gdino_build.memory.plan import (
        PLAN_FILE_NAME,
        MemoryPlan,
        check_plan,
        format_plan,
        full_queues_bytes,
    )

    if profile.runtime != "openvino":
        raise ConfigError(
            f"profile {profile.name} has the runtime {profile.runtime}, whose memory is measured on its GPU",
            fix="make gpu-check tells what a plan takes there",
        )
    folder = folder_of(profile, arguments)
    engine = folder / "engine" / f"{contract.MODEL_DETECTOR}.xml"
    check_files([engine, folder / "repository" / "manifest.json"])
    buckets = sorted(profile.preprocess.resolution_buckets, key=math.prod)
    batches, largest = batches_to_measure(profile.max_batch_size), profile.max_batch_size
    with tqdm(total=len(buckets) * (len(batches) + 1), unit="batch", disable=None) as bar:
        measure = partial(
            measure_detector,
            engine,
            profile.openvino,
            tokens=max(profile.preprocess.text_buckets),
            progress=lambda _: bar.update(),
        )
        costs = fit_costs([peak for bucket in buckets for peak in measure(buckets=[bucket], batches=batches)])
        together = max(peak.peak_bytes for peak in measure(buckets=buckets, batches=[largest]))
    plan = MemoryPlan(
        onnx_sha256=read_record(engine).onnx_sha256,
        settings=profile.openvino.to_parameters(),
        limit_bytes=round(arguments.memory_gib * 2**30) if arguments.memory_gib else memory_limit_bytes(),
        rest_bytes=measure_rest(folder / "repository", folder / "memory-server.log", profile.serving.cache_mib << 20),
        waiting_bytes=full_queues_bytes(profile.preprocess, profile.serving, profile.architecture.hidden_dim),
        kept_bytes=max(0, together - max(cost.bytes_at(largest) for cost in costs)),
        costs=costs,
    )
    print(format_plan(plan, profile.max_batch_size))
    write_json(folder / PLAN_FILE_NAME, plan.to_dict())
    print(f"wrote {folder / PLAN_FILE_NAME}")
    check_plan(plan, profile.max_batch_size)
