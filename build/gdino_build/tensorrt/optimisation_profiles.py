"""Turn buckets into TensorRT's optimisation profiles: the ranges of sizes that a plan is compiled for."""

from collections.abc import Mapping
from dataclasses import dataclass

from gdino_core.errors import ConfigError, ExportError

Sizes = tuple[int, ...]
Dims = tuple[int | str, ...]  # a size, or the name of an axis whose size may vary

_KNOWN_AXES = ("batch", "tokens", "height", "width")  # as export.py names them


@dataclass(frozen=True, kw_only=True)
class ShapeRange:
    """Sizes of one input in one profile: the smallest, those to be fastest at, the largest."""

    min: Sizes
    opt: Sizes
    max: Sizes


OptimisationProfile = Mapping[str, ShapeRange]  # by name of the input


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """The sizes that requests come in.

    Attributes:
        resolutions: heights and widths of padded pictures.
        tokens: numbers that prompts are padded to.
        max_batch_size: most pictures in one batch.
        opt_batch_size: pictures in the batch that the plan is fastest at.
        opt_tokens: tokens that the plan is fastest at; None for the smallest bucket, which most prompts fit in.
    """

    resolutions: tuple[tuple[int, int], ...]
    tokens: tuple[int, ...]
    max_batch_size: int
    opt_batch_size: int = 1
    opt_tokens: int | None = None

    def __post_init__(self) -> None:
        if not self.resolutions or not self.tokens:
            raise ConfigError("there are no buckets", fix="name resolution_buckets and text_buckets")
        if not 1 <= self.opt_batch_size <= self.max_batch_size:
            raise ConfigError(
                f"batch range 1/{self.opt_batch_size}/{self.max_batch_size} is not ordered min <= opt <= max",
                fix="choose an opt_batch_size from 1 to max_batch_size",
            )
        if self.opt_tokens is not None and not min(self.tokens) <= self.opt_tokens <= max(self.tokens):
            raise ConfigError(
                f"token range {min(self.tokens)}/{self.opt_tokens}/{max(self.tokens)} is not ordered min <= opt <= max",
                fix="choose opt_tokens within the text buckets",
            )


def buckets_to_profiles(inputs: Mapping[str, Dims], buckets: Buckets) -> list[OptimisationProfile]:
    """One profile for each resolution, with its height and width fixed; one in all for a graph that sees no picture.

    Args:
        inputs: sizes and axis names of each input of the graph, such as {"PIXELS": ("batch", 3, "height", "width")}.
        buckets: the sizes that requests come in.

    Raises:
        ExportError: an axis has a name that no bucket speaks of.
    """
    axes = {axis for dims in inputs.values() for axis in dims if isinstance(axis, str)}
    if unknown := sorted(axes - set(_KNOWN_AXES)):
        raise ExportError(
            f"the graph has an input axis named {unknown[0]!r}, for which there is no range",
            fix=f"export it with the axes {', '.join(_KNOWN_AXES)} only",
        )
    if not axes:
        return []
    text_alone = axes <= {"batch", "tokens"}
    resolutions = buckets.resolutions[:1] if text_alone else buckets.resolutions
    return [_profile(inputs, buckets, resolution) for resolution in resolutions]


def _profile(inputs: Mapping[str, Dims], buckets: Buckets, resolution: tuple[int, int]) -> OptimisationProfile:
    height, width = resolution
    smallest, largest = min(buckets.tokens), max(buckets.tokens)
    fixed = {"height": height, "width": width}
    low = {"batch": 1, "tokens": smallest, **fixed}
    best = {"batch": buckets.opt_batch_size, "tokens": buckets.opt_tokens or smallest, **fixed}
    high = {"batch": buckets.max_batch_size, "tokens": largest, **fixed}
    return {
        name: ShapeRange(min=_sizes(dims, low), opt=_sizes(dims, best), max=_sizes(dims, high))
        for name, dims in inputs.items()
    }


def _sizes(dims: Dims, sizes: Mapping[str, int]) -> Sizes:
    return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in dims)
