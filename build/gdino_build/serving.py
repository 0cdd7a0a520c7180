"""How the server queues and warms up: settings of a profile, written into config.pbtxt of each step.

Priorities, limits and timeouts hold for each step by itself: a request that may not wait any longer, or finds a queue
full, is answered with UNAVAILABLE there and then.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc import model_config_pb2

from gdino_build.triton_config import Config
from gdino_core import contract
from gdino_core.errors import ConfigError
from gdino_core.processors import count_processors
from gdino_core.settings import PreprocessSettings

WARM_UP_FOLDER = "warmup"  # of a model; Triton looks there for the data of warm-up requests
_POLICY = model_config_pb2.ModelQueuePolicy


@dataclass(frozen=True, kw_only=True)
class ServingSettings:
    """Queues and instances of the steps.

    Attributes:
        max_queue_size: most requests that wait before a step; a further one is refused. 0: no limit.
        queue_timeout_ms: longest that a request waits before a step, unless its own `timeout` is shorter.
        batches_at_once: so many batches of requests are handed to an engine together, which batches those of equal
            shapes; a request that comes later waits for them, whatever its priority.
        queue_delay_us: how long a request waits for others to share its batch.
        preprocess_instances: pictures that are decoded side by side. 0: as many as there are processors.
        warm_up: run every bucket once before the server says that it is ready.
        cache_mib: for the text encoder's answers: a prompt that was asked before runs no text encoder. 0: none.
        instances_per_gpu: copies of each engine on a GPU, which run side by side.
        text_encoder_gpus: numbers of the GPUs that have a text encoder; none: all have.
        detector_gpus: numbers of the GPUs that have a detector; none: all have.

    Raises:
        ConfigError: a value is out of range.
    """

    max_queue_size: int = 64
    queue_timeout_ms: int = 60_000
    batches_at_once: int = 1
    queue_delay_us: int = 0
    preprocess_instances: int = 0
    warm_up: bool = True
    cache_mib: int = 64
    instances_per_gpu: int = 1
    text_encoder_gpus: tuple[int, ...] = ()
    detector_gpus: tuple[int, ...] = ()

    def count_instances(self) -> int:
        """Instances of the preprocessing on this machine."""
        return self.preprocess_instances or count_processors()

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("max_queue_size", "queue_delay_us", "preprocess_instances", "cache_mib"):
            if getattr(self, name) < 0:
                raise ConfigError(f"[serving] {name} is {getattr(self, name)}", fix="choose 0 or more")
        # Without a timeout Triton ignores those of requests.
        for name in ("batches_at_once", "queue_timeout_ms", "instances_per_gpu"):
            if getattr(self, name) < 1:
                raise ConfigError(f"[serving] {name} is {getattr(self, name)}", fix="choose 1 or more")
        for name in ("text_encoder_gpus", "detector_gpus"):
            gpus = getattr(self, name)
            if min(gpus, default=0) < 0 or len(set(gpus)) < len(gpus):
                raise ConfigError(f"[serving] {name} is {list(gpus)}", fix="name each GPU once, the first as 0")


def set_queue(config: Config, settings: ServingSettings) -> None:
    """Give a step a bounded queue with two priorities.

    Args:
        config: of the step; changed in place.
        settings: of the profile.
    """
    batching = config.dynamic_batching
    batching.priority_levels = contract.PRIORITY_BULK
    batching.default_priority_level = contract.PRIORITY_INTERACTIVE
    policy = batching.default_queue_policy
    policy.timeout_action = _POLICY.REJECT
    policy.default_timeout_microseconds = settings.queue_timeout_ms * 1000
    policy.allow_timeout_override = True
    policy.max_queue_size = settings.max_queue_size


def set_batches(config: Config, settings: ServingSettings, max_batch_size: int, max_prompts: int) -> None:
    """Let requests be handed to an engine together.

    Args:
        config: of the step; changed in place.
        settings: of the profile.
        max_batch_size: most rows in one inference.
        max_prompts: most rows of one request, those of a long list of labels; the engine runs them in several.
    """
    rows = settings.batches_at_once * max_batch_size
    config.max_batch_size = max(rows, max_prompts)
    config.dynamic_batching.preferred_batch_size[:] = [rows]
    config.dynamic_batching.max_queue_delay_microseconds = settings.queue_delay_us


def add_text_warm_up(config: Config, preprocess: PreprocessSettings) -> None:
    """Let Triton run the text encoder on a prompt of each length."""
    for tokens in preprocess.text_buckets:
        sample = config.model_warmup.add(name=f"{tokens} tokens", batch_size=1)
        for tensor in config.input:
            given = sample.inputs[tensor.name]
            given.data_type = tensor.data_type
            _fill_with_zeros(given, tensor.dims, [tokens])


def add_picture_warm_up(
    config: Config, preprocess: PreprocessSettings, *, largest_batch: int, in_every_bucket: bool
) -> None:
    """Let Triton run the detector on a picture of each size, and on as much as it computes at once.

    Args:
        config: of the detector, its max_batch_size set; changed in place.
        preprocess: has the sizes.
        largest_batch: most pictures that are computed at once.
        in_every_bucket: run so many of each size; otherwise of the largest alone.
    """
    buckets, shortest, longest = preprocess.resolution_buckets, preprocess.text_buckets[0], preprocess.text_buckets[-1]
    most = min(largest_batch, config.max_batch_size)
    # The memory that the largest batches need is taken now, not in the midst of work.
    full = buckets if in_every_bucket else [max(buckets, key=math.prod)]
    samples = [(bucket, 1, shortest) for bucket in buckets] + [(bucket, most, longest) for bucket in full]
    for (height, width), pictures, tokens in samples:
        sample = config.model_warmup.add(name=f"{pictures} of {height}x{width}", batch_size=pictures)
        for tensor in config.input:
            given = sample.inputs[tensor.name]
            given.data_type = tensor.data_type
            if tensor.name == contract.VALID_HW:  # a picture without pixels would be no number anywhere
                given.dims[:] = tensor.dims
                given.input_data_file = _size_file(height, width)
            else:
                open_dims = [height, width] if tensor.name == contract.PIXELS else [tokens]
                _fill_with_zeros(given, tensor.dims, open_dims)


def warm_up_files(preprocess: PreprocessSettings) -> Iterator[tuple[Path, bytes]]:
    """What `add_picture_warm_up` refers to: files below the model's folder, and what is in them."""
    for height, width in preprocess.resolution_buckets:
        yield Path(WARM_UP_FOLDER) / _size_file(height, width), struct.pack("=2i", height, width)


def _size_file(height: int, width: int) -> str:
    return f"valid_hw_{height}x{width}"


def _fill_with_zeros(given: Config, dims: Sequence[int], open_dims: Sequence[int]) -> None:
    """Describe zeros of these sizes, those that are -1 given in turn."""
    rest = iter(open_dims)
    given.dims[:] = [next(rest) if size == -1 else size for size in dims]
    given.zero_data = True
