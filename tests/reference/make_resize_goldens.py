"""Ask the original how it resizes pictures (torchvision's transform on Pillow); runs in .venv-reference."""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

from gdino_build.pictures import draw_picture
from tests.reference.original import versions
from tests.reference.original.images import resize

_RESIZES = ((800, 1333), (128, 228))  # short side, longest long side: the original's, and the demo's
_SIZES_HW = (
    *(
        (480, 640),
        (640, 480),
        (427, 640),
        (640, 427),
        (333, 500),
        (500, 333),
        (375, 500),
        (612, 612),
    ),  # COCO's
    *(
        (800, 800),
        (800, 1333),
        (1333, 800),
        (799, 1333),
        (801, 1333),
        (800, 1334),
        (800, 1000),
    ),  # at the limits
    *((1080, 1920), (1920, 1080), (2160, 3840), (3024, 4032), (720, 1280), (768, 1024)),  # cameras'
    *((100, 1000), (1000, 100), (300, 2999), (57, 431), (1500, 900), (601, 1001), (1001, 601)),  # too long
    *((128, 228), (228, 128), (128, 128), (129, 229), (120, 216), (90, 160), (150, 200)),  # the demo's limits
    *((1, 500), (500, 1), (3, 700), (10, 3000), (3000, 10), (13, 2000), (1, 2665), (2665, 1), (57, 1333)),  # thin
    *((287, 576), (639, 1279), (455, 1), (1, 303), (3, 456)),  # where rounding up half a pixel lengthens most
    *((1, 1), (1, 2), (2, 3), (7, 5), (31, 37), (1279, 1707), (1365, 2048), (797, 1329), (533, 887)),  # odd
)
_DRAWN = ((480, 640), (640, 427), (333, 500), (1080, 1920), (100, 1000), (800, 1000), (128, 228), (31, 37))


def main() -> None:
    """Write the golden file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("tests/goldens/resize.json"))
    out: Path = parser.parse_args().out
    sizes = [
        {
            "short_side": short,
            "long_side": long,
            "image_hw": hw,
            "resized_hw": _resized_hw(hw, short, long),
        }
        for short, long in _RESIZES
        for hw in _SIZES_HW
    ]
    pixels = [
        _drawn_case(seed, hw, short, long) for short, long in _RESIZES for seed, hw in enumerate(_DRAWN, start=100)
    ]
    lines = {"made_with": versions(), "sizes": sizes, "pixels": pixels}
    text = ",\n".join(f"{json.dumps(key)}: {_lines(value)}" for key, value in lines.items())
    out.write_text(f"{{{text}}}\n", encoding="utf-8")
    print(f"{out}: {len(sizes)} sizes, {len(pixels)} pictures, {out.stat().st_size:,} bytes")


def _drawn_case(seed: int, image_hw: tuple[int, int], short_side: int, long_side: int) -> dict[str, object]:
    """A picture by draw_picture(seed, ...), and the SHA-256 of its resized bytes, HWC uint8 RGB."""
    resized = resize(Image.fromarray(draw_picture(seed, *image_hw)), short_side, long_side)
    return {
        "short_side": short_side,
        "long_side": long_side,
        "seed": seed,
        "image_hw": image_hw,
        "resized_hw": _shape(resized),
        "sha256": hashlib.sha256(np.asarray(resized).tobytes()).hexdigest(),
    }


def _resized_hw(image_hw: tuple[int, int], short_side: int, long_side: int) -> tuple[int, int] | None:
    """The size that the original gives, or None where it fails because no pixel is left."""
    try:
        return _shape(resize(Image.new("L", image_hw[::-1]), short_side, long_side))
    except ValueError:
        return None


def _shape(picture: Image.Image) -> tuple[int, int]:
    return picture.height, picture.width


def _lines(value: object) -> str:
    """JSON with one element of a list a line, so that a change is one line in a diff."""
    if not isinstance(value, list):
        return json.dumps(value)
    return "[\n" + ",\n".join(json.dumps(item) for item in value) + "\n]"


if __name__ == "__main__":
    main()
