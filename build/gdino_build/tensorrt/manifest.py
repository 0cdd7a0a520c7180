"""What a plan was made from and for: the manifest beside it, and the check before it is loaded."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from gdino_build.engine import sha256_of
from gdino_build.tensorrt.optimisation_profiles import Buckets, OptimisationProfile, ShapeRange
from gdino_core.errors import ConfigError, ExportError

_REBUILD = "run make engines again"


@dataclass(frozen=True, kw_only=True)
class PlanTensor:
    """An input or output of a plan.

    Attributes:
        type_name: TensorRT's name of the type, such as "UINT8", "INT32", "FLOAT" or "HALF".
        dims: all sizes, the batch first; -1 where they may vary.
    """

    type_name: str
    dims: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PlanManifest:
    """What a plan was made from and for. A plan tells nothing of it without a GPU to load it on.

    Attributes:
        rebuild_command: that makes the plan again.
        onnx_sha256: of the graph.
        flavour: "tensorrt" or "tensorrt-rtx".
        version: of the flavour.
        capability: compute capability, such as 89.
        products: how many matrix products and convolutions compute in each type, such as {"fp16": 120, "int8": 80}.
        inputs: by name.
        outputs: by name.
        buckets: sizes of requests that it was compiled for.
        profiles: ranges of each input, in the order of the plan.
        workspace_bytes: most GPU memory for intermediate results.
        build_seconds: that the compiling process took, from its start to its end.
        peak_memory_bytes: of the compiling process.
        plan_bytes: size of the plan.
        plan_sha256: of the plan: it belongs to this manifest and to no other.
    """

    rebuild_command: str
    onnx_sha256: str
    flavour: str
    version: str
    capability: int
    products: Mapping[str, int]
    inputs: Mapping[str, PlanTensor]
    outputs: Mapping[str, PlanTensor]
    buckets: Buckets
    profiles: tuple[OptimisationProfile, ...]
    workspace_bytes: int
    build_seconds: float
    peak_memory_bytes: int
    plan_bytes: int
    plan_sha256: str


def write_manifest(manifest: PlanManifest, path: Path) -> None:
    """Write a manifest as JSON."""
    path.write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")


def read_manifest(plan_path: Path) -> PlanManifest:
    """Read the manifest of a plan, and check that it is the plan's own.

    Args:
        plan_path: the .plan; its manifest lies beside it as .json.

    Raises:
        ExportError: one of the two is missing or damaged, or they do not belong together.
    """
    path = plan_path.with_suffix(".json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        tensors = {
            kind: {name: PlanTensor(type_name=one["type_name"], dims=tuple(one["dims"])) for name, one in found.items()}
            for kind, found in ((kind, content[kind]) for kind in ("inputs", "outputs"))
        }
        profiles = tuple(
            {name: ShapeRange(**{end: tuple(sizes) for end, sizes in one.items()}) for name, one in profile.items()}
            for profile in content["profiles"]
        )
        resolutions = tuple((height, width) for height, width in content["buckets"]["resolutions"])
        buckets = {**content["buckets"], "resolutions": resolutions, "tokens": tuple(content["buckets"]["tokens"])}
        manifest = PlanManifest(**{**content, **tensors, "buckets": Buckets(**buckets), "profiles": profiles})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ConfigError) as error:
        raise ExportError(f"{path} cannot be read: {error!r}", fix=_REBUILD) from error
    if not plan_path.is_file():
        raise ExportError(f"{plan_path} does not exist", fix=manifest.rebuild_command)
    if plan_path.stat().st_size != manifest.plan_bytes or sha256_of(plan_path) != manifest.plan_sha256:
        raise ExportError(f"{plan_path} is not the plan that {path.name} speaks of", fix=manifest.rebuild_command)
    return manifest


def check_plan(manifest: PlanManifest, flavour: str, version: str, capability: int) -> None:
    """Refuse a plan that the machine at hand cannot load.

    Args:
        manifest: of the plan.
        flavour: of the TensorRT that would load it, "tensorrt" or "tensorrt-rtx".
        version: of that TensorRT; a plan loads in exactly the version that compiled it.
        capability: compute capability of the GPU, such as 89.

    Raises:
        ExportError: it was compiled by another TensorRT or for another GPU.
    """
    compiled, here = (manifest.flavour, manifest.version), (flavour, version)
    if compiled != here:
        raise ExportError(
            f"the plan was compiled by {' '.join(compiled)}, here is {' '.join(here)}",
            fix=f"rebuild it with {' '.join(here)}: {manifest.rebuild_command}",
        )
    if manifest.capability != capability:
        rebuild = manifest.rebuild_command.replace(f"SM={manifest.capability}", f"SM={capability}")
        raise ExportError(
            f"the plan was compiled for SM={manifest.capability}, the GPU here has SM={capability}",
            fix=f"rebuild it: {rebuild}",
        )


def put_in_place(partial_plan: Path, manifest: PlanManifest, plan_path: Path) -> None:
    """Give a plan and its manifest their names; at no time does a plan lie beside the manifest of another."""
    partial_manifest = partial_plan.with_suffix(".json")
    write_manifest(manifest, partial_manifest)
    plan_path.with_suffix(".json").unlink(missing_ok=True)
    os.replace(partial_plan, plan_path)
    os.replace(partial_manifest, plan_path.with_suffix(".json"))
