"""How INT8 is calibrated, as a profile's [calibration] has it."""

from dataclasses import dataclass
from pathlib import Path

from gdino_core.errors import ConfigError

METHODS = ("min-max", "percentile", "entropy")


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings:
    """How INT8 is calibrated.

    Attributes:
        images: folder of the pictures.
        annotations: file in COCO's format; its categories are the prompts.
        pictures: how many are drawn from it.
        method: one of METHODS; see `calibration`.
        seed: chooses pictures and prompts.
    """

    images: Path
    annotations: Path
    pictures: int
    method: str
    seed: int

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"[calibration] method is {self.method!r}", fix=f"choose one of {', '.join(METHODS)}")
        if self.pictures < 1:
            raise ConfigError(f"[calibration] pictures is {self.pictures}", fix="choose 1 or more; 64 are usual")
