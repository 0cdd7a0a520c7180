"""Draw pictures of every kind, and ask the original how it reads and resizes them; runs in .venv-reference.

The files are kept beside the answers, because their bytes depend on the version of Pillow.
"""

import argparse
import hashlib
import json
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL.ExifTags import Base as ExifTag

from gdino_build.pictures import draw_picture
from tests.reference.original import versions
from tests.reference.original.images import normalise, resize

_SHORT_SIDE, _LONG_SIDE = 800, 1333


def main() -> None:
    """Write the pictures and the golden file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("tests/goldens/pictures.json"))
    out: Path = parser.parse_args().out
    folder = out.with_suffix("")
    folder.mkdir(exist_ok=True)
    cases = []
    for name, data in _pictures().items():
        (folder / name).write_bytes(data)
        cases.append({"file": name, **_answer(folder / name)})
    lines = ",\n".join(json.dumps(case) for case in cases)
    out.write_text(f'{{"made_with": {json.dumps(versions())},\n"cases": [\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{out}: {len(cases)} pictures, {sum(path.stat().st_size for path in folder.iterdir()):,} bytes")


def _pictures() -> dict[str, bytes]:
    """Encoded pictures by file name."""
    drawn = Image.fromarray(draw_picture(20, 48, 64))
    palette = drawn.quantize(32)
    gray_16 = Image.fromarray((draw_picture(23, 48, 64)[..., 0].astype(np.uint16) * 257) ^ 90)
    pictures = {
        "jpeg-subsampled.jpg": _encode(drawn, "JPEG", quality=90, subsampling="4:2:0"),
        "jpeg-not-subsampled.jpg": _encode(drawn, "JPEG", quality=90, subsampling="4:4:4"),
        "jpeg-progressive.jpg": _encode(drawn, "JPEG", quality=90, progressive=True),
        "jpeg-progressive-large.jpg": _encode(_draw(24, 900, 1210), "JPEG", quality=30, progressive=True),
        "jpeg-portrait-large.jpg": _encode(_draw(25, 1400, 820), "JPEG", quality=20),
        "jpeg-gray.jpg": _encode(drawn.convert("L"), "JPEG", quality=90),
        "jpeg-cmyk-adobe-inverted.jpg": _encode(drawn.convert("CMYK"), "JPEG", quality=90),
        "jpeg-cmyk-progressive.jpg": _encode(drawn.convert("CMYK"), "JPEG", quality=90, progressive=True),
        "jpeg-two-pictures.mpo": _encode(drawn, "MPO", save_all=True, append_images=_more_frames()),
        "png-rgb.png": _encode(drawn, "PNG"),
        "png-rgb-16.png": _png_rgb_16(draw_picture(26, 24, 32)),
        "png-gray.png": _encode(drawn.convert("L"), "PNG"),
        "png-gray-alpha.png": _encode(_with_alpha(drawn.convert("LA")), "PNG"),
        "png-gray-16.png": _encode(gray_16, "PNG"),
        "png-one-bit.png": _encode(drawn.convert("1"), "PNG"),
        "png-palette.png": _encode(palette, "PNG"),
        "png-palette-16-colours.png": _encode(drawn.quantize(16), "PNG"),
        "png-palette-one-transparent.png": _encode(palette, "PNG", transparency=3),
        "png-palette-alpha.png": _encode(palette, "PNG", transparency=bytes(range(0, 256, 8))),
        "png-rgb-one-transparent.png": _encode(drawn, "PNG", transparency=drawn.getpixel((5, 5))),
        "png-rgba.png": _encode(_with_alpha(drawn.convert("RGBA")), "PNG"),
        "png-animated.png": _encode(drawn, "PNG", save_all=True, append_images=_more_frames()),
        "webp-lossy.webp": _encode(drawn, "WebP", quality=80),
        "webp-rgba.webp": _encode(_with_alpha(drawn.convert("RGBA")), "WebP", lossless=True, exact=True),
        "webp-animated.webp": _encode(drawn, "WebP", quality=80, save_all=True, append_images=_more_frames()),
        "gif-animated.gif": _encode(palette, "GIF", save_all=True, append_images=_more_frames()),
        "gif-animated-transparent.gif": _encode(
            palette, "GIF", save_all=True, append_images=_more_frames(), transparency=2, disposal=2
        ),
        "gif-gray.gif": _encode(drawn.convert("L"), "GIF"),
        "bmp-rgb.bmp": _encode(drawn, "BMP"),
        "bmp-palette.bmp": _encode(palette, "BMP"),
        "bmp-rgba.bmp": _encode(_with_alpha(drawn.convert("RGBA")), "BMP"),
        "tiff-lzw.tif": _encode(drawn, "TIFF", compression="tiff_lzw"),
        "tiff-two-pages.tif": _encode(
            drawn, "TIFF", save_all=True, append_images=_more_frames(), compression="tiff_lzw"
        ),
        "tiff-cmyk.tif": _encode(drawn.convert("CMYK"), "TIFF", compression="tiff_lzw"),
        "tiff-gray-16.tif": _encode(gray_16, "TIFF"),
        "size-1x1.png": _encode(_draw(27, 1, 1), "PNG"),
        "size-2x3.png": _encode(_draw(28, 2, 3), "PNG"),
        "size-7x5.png": _encode(_draw(29, 7, 5), "PNG"),
        "size-not-resized-800x1000.png": _encode(_draw(30, 800, 1000).convert("1", dither=0), "PNG"),
        "size-huge-5000x6000.png": _encode(_draw(31, 500, 600).resize((6000, 5000), 0).convert("1", dither=0), "PNG"),
        "size-10x3000.png": _encode(_draw(32, 10, 3000).quantize(8), "PNG"),
        "size-3000x10.png": _encode(_draw(33, 3000, 10).quantize(8), "PNG"),
        "size-1x500.png": _encode(_draw(34, 1, 500), "PNG"),
        "size-500x1.png": _encode(_draw(35, 500, 1), "PNG"),
        "size-3x700.png": _encode(_draw(36, 3, 700), "PNG"),
        "size-1x2665.png": _encode(_draw(37, 1, 2665), "PNG"),
        "size-2665x1.png": _encode(_draw(38, 2665, 1), "PNG"),
        "size-1x2666-too-thin.png": _encode(_draw(39, 1, 2666), "PNG"),
        "size-4000x1-too-thin.png": _encode(_draw(40, 4000, 1), "PNG"),
    }
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ExifTag.Orientation] = orientation
        pictures[f"exif-{orientation}.jpg"] = _encode(drawn, "JPEG", quality=90, exif=exif)
        if orientation in (3, 6):
            pictures[f"exif-{orientation}.png"] = _encode(drawn, "PNG", exif=exif)
            pictures[f"exif-{orientation}.webp"] = _encode(drawn, "WebP", quality=80, exif=exif)
            # Pillow turns a TIFF upright by itself, for the original too.
            pictures[f"tiff-orientation-{orientation}.tif"] = _encode(drawn, "TIFF", compression="tiff_lzw", exif=exif)
    return pictures


def _answer(path: Path) -> dict[str, object]:
    """What the original makes of a picture, read as its load_image() does unless the name says how we differ."""
    picture = _read(path)
    original = _resized(picture)
    if path.name.startswith("exif-"):
        with Image.open(path) as image:
            picture = ImageOps.exif_transpose(image).convert("RGB")
    elif "gray-16" in path.name:
        with Image.open(path) as image:
            picture = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    resized = _resized(picture)
    answer: dict[str, object] = {"image_hw": [picture.height, picture.width]}
    if isinstance(resized, str):
        return answer | {"error": resized}
    answer |= {
        "resized_hw": [resized.height, resized.width],
        "pixels_sha256": _sha256(np.asarray(resized)),
        "normalised_sha256": _sha256(normalise(resized).numpy()),
        "corners": np.asarray(resized)[[0, 0, -1, -1], [0, -1, 0, -1]].tolist(),
    }
    if original != resized:
        answer["differs_from_the_original"] = True
    return answer


def _read(path: Path) -> Image.Image:
    """As util/inference.py, load_image()."""
    with Image.open(path) as image:
        return image.convert("RGB")


def _resized(picture: Image.Image) -> Image.Image | str:
    """The resized picture, or how the original fails."""
    try:
        return resize(picture, _SHORT_SIDE, _LONG_SIDE)
    except ValueError as error:
        return str(error)


def _draw(seed: int, height: int, width: int) -> Image.Image:
    return Image.fromarray(draw_picture(seed, height, width))


def _more_frames() -> list[Image.Image]:
    """New ones each time: Pillow leaves on them what a JPEG was saved with, and a TIFF trips over it."""
    return [_draw(seed, 48, 64) for seed in (21, 22)]


def _with_alpha(image: Image.Image) -> Image.Image:
    """Let a picture with an alpha channel fade out from left to right."""
    image.putalpha(Image.fromarray(np.tile(np.linspace(255, 0, image.width).astype(np.uint8), (image.height, 1))))
    return image


def _encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def _png_rgb_16(rgb: np.ndarray) -> bytes:
    """A PNG of 16 bits a sample, which Pillow reads and does not write."""
    height, width, _ = rgb.shape
    samples = (rgb.astype(">u2") * 257) ^ 90
    rows = b"".join(b"\0" + row.tobytes() for row in samples.astype(">u2"))  # 0: no filter
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


if __name__ == "__main__":
    main()
