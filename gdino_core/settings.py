"""How pictures and prompts are prepared for one built model.

They are checked when the model is built, and travel to the server as the `parameters` of config.pbtxt.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from gdino_core.contract import MAX_TOKENS, STRIDE
from gdino_core.errors import ConfigError

_MIN_TEXT_BUCKET = 3  # [CLS] . [SEP]
_NUMBER = re.compile(r"[0-9]{1,18}")
_BUCKET = re.compile(r"([0-9]{1,18})x([0-9]{1,18})")


@dataclass(frozen=True, kw_only=True)
class PreprocessSettings:
    """Sizes, buckets and limits of the preprocessing.

    Attributes:
        short_side: pixels of the resized picture's short side.
        long_side: pixels of its long side at which the short side gives way; see longest_resized_side.
        resolution_buckets: heights and widths (H, W) that pictures are padded to, multiples of STRIDE; every
            picture that the original can resize fits one.
        text_buckets: numbers of tokens that prompts are padded to, rising, at most MAX_TOKENS.
        max_prompts: most prompts that one list of labels may fill; each travels with a copy of the picture.
        max_image_bytes: most bytes of an encoded picture.
        max_image_pixels: most pixels of a picture as it was sent, checked before it is decoded.

    Raises:
        ConfigError: a value is out of range, or some picture would fit no bucket.
    """

    short_side: int
    long_side: int
    resolution_buckets: tuple[tuple[int, int], ...]
    text_buckets: tuple[int, ...] = (16, 32, 64, 128, 256)
    max_prompts: int = 64
    max_image_bytes: int = 32 * 2**20
    max_image_pixels: int = 2**26

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("short_side", "long_side", "max_prompts", "max_image_bytes", "max_image_pixels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix=f"give {name} a value of 1 or more")
        if self.short_side > self.long_side:
            raise ConfigError(
                f"short_side {self.short_side} is more than long_side {self.long_side}",
                fix="raise long_side, or lower short_side",
            )
        _check_resolution_buckets(self.resolution_buckets, self.short_side, self.long_side)
        _check_text_buckets(self.text_buckets)

    def to_parameters(self) -> dict[str, str]:
        """Return the settings as names and strings, for the `parameters` of config.pbtxt."""
        return {
            "short_side": str(self.short_side),
            "long_side": str(self.long_side),
            "resolution_buckets": ",".join(f"{height}x{width}" for height, width in self.resolution_buckets),
            "text_buckets": ",".join(map(str, self.text_buckets)),
            "max_prompts": str(self.max_prompts),
            "max_image_bytes": str(self.max_image_bytes),
            "max_image_pixels": str(self.max_image_pixels),
        }

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Self:
        """Read the settings back from the `parameters` of config.pbtxt.

        Args:
            parameters: names and strings as to_parameters() writes them, all of them; others, which are for
                Triton or the contract, are left alone (a misspelt name shows: the right one is missing).

        Raises:
            ConfigError: a parameter is missing, is not written as expected, or has a value that is refused.
        """
        return cls(
            short_side=_read_number(parameters, "short_side"),
            long_side=_read_number(parameters, "long_side"),
            resolution_buckets=_read_buckets(parameters, "resolution_buckets"),
            text_buckets=_read_numbers(parameters, "text_buckets"),
            max_prompts=_read_number(parameters, "max_prompts"),
            max_image_bytes=_read_number(parameters, "max_image_bytes"),
            max_image_pixels=_read_number(parameters, "max_image_pixels"),
        )


def longest_resized_side(resized_short: int, long_side: int) -> int:
    """Return how long a picture can be after resizing that is `resized_short` pixels on its short side.

    The original rounds the short side, `long_side / aspect`, and then takes the long one as so many times the
    aspect. Where it rounded up by half a pixel, the aspect was `long_side / (resized_short - 1/2)`: 1333 becomes
    1345 at a short side of 56, and nearly twice 1333 at 1.
    """
    return long_side + long_side // (2 * resized_short - 1)


def _check_resolution_buckets(buckets: tuple[tuple[int, int], ...], short_side: int, long_side: int) -> None:
    if not buckets:
        raise ConfigError("resolution_buckets is empty", fix="name at least one HEIGHTxWIDTH, such as 800x1344")
    for height, width in buckets:
        if height < STRIDE or width < STRIDE or height % STRIDE or width % STRIDE:
            raise ConfigError(
                f"resolution bucket {height}x{width} is not made of multiples of {STRIDE}",
                fix=f"round both up to a multiple of {STRIDE}, the stride of the backbone",
            )
    # These are the largest sizes that image.resized_hw() gives: holding them proves that every picture fits.
    for short in range(short_side, 0, -1):
        long = longest_resized_side(short, long_side)
        # One bucket for the usual pictures, and one for all that are thinner.
        added = (short, long if short == short_side else longest_resized_side(1, long_side))
        for needed, remedy in (((short, long), added), ((long, short), added[::-1])):
            if not any(height >= needed[0] and width >= needed[1] for height, width in buckets):
                raise ConfigError(
                    f"no resolution bucket holds a picture resized to {needed[0]}x{needed[1]} (height x width)",
                    fix=f"add {round_up_to_stride(remedy[0])}x{round_up_to_stride(remedy[1])} to resolution_buckets",
                )


def _check_text_buckets(buckets: tuple[int, ...]) -> None:
    if not buckets:
        raise ConfigError("text_buckets is empty", fix=f"name at least one length, such as {MAX_TOKENS}")
    if any(later <= earlier for earlier, later in pairwise(buckets)):
        raise ConfigError(f"text_buckets {list(buckets)} do not rise", fix="sort them, each once")
    if buckets[0] < _MIN_TEXT_BUCKET or buckets[-1] > MAX_TOKENS:
        raise ConfigError(
            f"text_buckets {list(buckets)} leave the range {_MIN_TEXT_BUCKET} to {MAX_TOKENS}",
            fix=f"the model was trained with at most {MAX_TOKENS} tokens: remove what is outside",
        )


def round_up_to_stride(side: int) -> int:
    """The smallest multiple of STRIDE that is not below a side."""
    return -(-side // STRIDE) * STRIDE


def _read(parameters: Mapping[str, str], name: str) -> str:
    if name not in parameters:
        raise ConfigError(
            f"config.pbtxt lacks the parameter {name}",
            fix="assemble the repository again, or write the parameter into config.pbtxt",
        )
    return parameters[name]


def _read_number(parameters: Mapping[str, str], name: str) -> int:
    text = _read(parameters, name)
    if not _NUMBER.fullmatch(text):
        raise ConfigError(f"parameter {name} is {text!r}", fix="write a whole number, such as 800")
    return int(text)


def _read_numbers(parameters: Mapping[str, str], name: str) -> tuple[int, ...]:
    text = _read(parameters, name)
    items = text.split(",")
    if not all(_NUMBER.fullmatch(item) for item in items):
        raise ConfigError(f"parameter {name} is {text!r}", fix="write whole numbers and commas, such as 16,32,64")
    return tuple(map(int, items))


def _read_buckets(parameters: Mapping[str, str], name: str) -> tuple[tuple[int, int], ...]:
    text = _read(parameters, name)
    matches = [_BUCKET.fullmatch(item) for item in text.split(",")]
    buckets = tuple((int(match[1]), int(match[2])) for match in matches if match)
    if len(buckets) != len(matches):
        raise ConfigError(
            f"parameter {name} is {text!r}",
            fix="write HEIGHTxWIDTH and commas, such as 800x1344,1344x800",
        )
    return buckets
