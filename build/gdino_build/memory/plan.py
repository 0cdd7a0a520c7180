"""The largest batch that fits a machine's memory, and the refusal of a profile that does not fit."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gdino_build.memory.cost import BucketCost
from gdino_build.serving import ServingSettings
from gdino_core import contract
from gdino_core.errors import ConfigError
from gdino_core.settings import PreprocessSettings

PLAN_FILE_NAME = "memory-plan.json"
MARGIN = 0.2  # of the memory, that stays free
_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What was measured, and what fits.

    Attributes:
        onnx_sha256: of the graph that the measured engine was made of.
        settings: of the engine, which memory depends on.
        limit_bytes: memory of the machine or the container.
        rest_bytes: of the server beside the detector: the other models, their instances, the server itself.
        waiting_bytes: of full queues, before each step that reads pictures or carries them on.
        kept_bytes: what a detector that has seen all buckets holds beyond the cost of the largest.
        costs: of a detector that sees one bucket.
    """

    onnx_sha256: str
    settings: Mapping[str, str]
    limit_bytes: int
    rest_bytes: int
    waiting_bytes: int
    kept_bytes: int
    costs: Sequence[BucketCost]

    @property
    def available_bytes(self) -> int:
        """For the work of all detectors: what the margin, the rest and the requests that wait leave."""
        return int(self.limit_bytes * (1 - MARGIN)) - self.rest_bytes - self.waiting_bytes

    def bytes_at(self, batch: int) -> int:
        """Memory of a detector that has seen all buckets in batches of this size."""
        return self.kept_bytes + max(cost.bytes_at(batch) for cost in self.costs)

    @property
    def largest_batch(self) -> int:
        """Most pictures in a batch that fit whatever their bucket; 0 where not even one does."""
        return min(cost.largest_batch(self.available_bytes - self.kept_bytes) for cost in self.costs)

    def is_of(self, onnx_sha256: str, settings: Mapping[str, str]) -> bool:
        """Whether it was measured on an engine of this graph and these settings."""
        return (self.onnx_sha256, dict(self.settings)) == (onnx_sha256, dict(settings))

    def instances(self, batch: int) -> int:
        """How many detectors fit, each with batches of this size."""
        return max(0, self.available_bytes) // self.bytes_at(batch)

    def to_dict(self) -> dict[str, Any]:
        """As memory-plan.json has it."""
        return asdict(self) | {"available_bytes": self.available_bytes, "largest_batch": self.largest_batch}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "MemoryPlan":
        """Read what `to_dict` wrote."""
        costs = [BucketCost(**{**cost, "bucket": tuple(cost["bucket"])}) for cost in content["costs"]]
        return cls(
            onnx_sha256=content["onnx_sha256"],
            settings=content["settings"],
            limit_bytes=content["limit_bytes"],
            rest_bytes=content["rest_bytes"],
            waiting_bytes=content["waiting_bytes"],
            kept_bytes=content["kept_bytes"],
            costs=costs,
        )


def full_queues_bytes(preprocess: PreprocessSettings, serving: ServingSettings, text_dim: int) -> int:
    """Most memory of requests that wait for the text encoder or the detector; 0 for queues without a limit.

    Args:
        preprocess: tells the largest picture, and how many prompts it may come with.
        serving: tells how many wait, of each priority.
        text_dim: channels of TEXT_FEATURES.
    """
    tokens = max(preprocess.text_buckets)
    ids = 3 * 4 * tokens  # INPUT_IDS, POSITION_IDS, PHRASE_IDS
    row = 3 * max(map(math.prod, preprocess.resolution_buckets)) + ids
    rows = contract.PRIORITY_BULK * serving.max_queue_size * preprocess.max_prompts
    return rows * (row + row + 4 * tokens * text_dim)  # before the text encoder, and with its features after it


def check_plan(plan: MemoryPlan, max_batch_size: int) -> None:
    """Refuse batches that do not fit.

    Raises:
        ConfigError: a batch of max_batch_size takes more than there is.
    """
    if plan.largest_batch >= max_batch_size:
        return
    worst = max(plan.costs, key=lambda cost: cost.bytes_at(max_batch_size))
    needed = plan.bytes_at(max_batch_size) + plan.rest_bytes + plan.waiting_bytes
    fix = f"set [engine] max_batch_size to {plan.largest_batch}" if plan.largest_batch else "choose smaller buckets"
    raise ConfigError(
        f"batches of {max_batch_size} pictures of {worst.bucket[0]}x{worst.bucket[1]} take {needed // _MIB} MiB, "
        f"{plan.waiting_bytes // _MIB} MiB of it queues; of {plan.limit_bytes // _MIB} MiB {MARGIN:.0%} stay free",
        fix=f"{fix}, lower [serving] max_queue_size or [preprocess] max_prompts, or serve where there is more memory",
    )


def read_plan(folder: Path) -> MemoryPlan | None:
    """Read the plan in the folder of a profile; None where there is none."""
    path = folder / PLAN_FILE_NAME
    if not path.is_file():
        return None
    try:
        return MemoryPlan.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no memory plan: {error!r}", fix="remove it, or run make plan-memory") from error


def format_plan(plan: MemoryPlan, max_batch_size: int) -> str:
    """A table, and what follows from it."""
    lines = [f"{'bucket':>12}{'base, MiB':>12}{'a picture, MiB':>16}{'largest batch':>15}"]
    for cost in plan.costs:
        lines.append(
            f"{f'{cost.bucket[0]}x{cost.bucket[1]}':>12}{cost.base_bytes / _MIB:>12.0f}"
            f"{cost.picture_bytes / _MIB:>16.1f}{cost.largest_batch(plan.available_bytes - plan.kept_bytes):>15}"
        )
    lines += [
        f"of {plan.limit_bytes // _MIB} MiB, {MARGIN:.0%} stay free, {plan.rest_bytes // _MIB} MiB are the server's "
        f"beside the detector, and {plan.waiting_bytes // _MIB} MiB are full queues' with the longest lists of labels",
        f"a detector that has seen all buckets in batches of {max_batch_size} takes "
        f"{plan.bytes_at(max_batch_size) // _MIB} MiB, {plan.kept_bytes // _MIB} MiB of it kept from other buckets",
        f"largest batch in any bucket: {plan.largest_batch}; detectors that fit with batches of {max_batch_size}: "
        f"{plan.instances(max_batch_size)}",
    ]
    return "\n".join(lines)
