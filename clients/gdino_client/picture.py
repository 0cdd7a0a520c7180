"""Read a picture from wherever it is: as the bytes that are sent, and upright, as its boxes are meant."""

import os
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base as ExifTag

from gdino_core.errors import ImageError

ImageSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | npt.NDArray[np.uint8]

_TURNED_BY_A_QUARTER = (5, 6, 7, 8)  # EXIF orientations that exchange height and width
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
# What an orientation in a PNG has in front of it; the names stand there uncompressed.
_PNG_ORIENTATION_MARKS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")


def encode_picture(image: ImageSource) -> bytes:
    """Return a picture as the bytes of a file that the server reads.

    Args:
        image: a path; the bytes of an encoded picture, which are sent as they are; a Pillow picture, whose
            EXIF orientation is kept; or uint8 [H, W, 3], RGB in [0, 255]. The latter two become a PNG,
            without loss.

    Raises:
        ImageError: the file cannot be read, or the picture or array cannot become a PNG.
    """
    if isinstance(image, str | os.PathLike):
        return read_picture(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Image.Image):
        return _png_of_picture(image)
    return _png_of_array(image)


def pixels_of(image: Image.Image | npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a decoded picture as the pixels that are sent, uint8 [H, W, 3], RGB, upright.

    Raises:
        ImageError: its file turns out to be damaged, or the picture or array is not such that it can be sent.
    """
    if isinstance(image, Image.Image):
        _check_samples(image)
        return np.asarray(upright(image))
    _check_array(image)
    return image


def read_picture(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a picture's file.

    Raises:
        ImageError: it is not there, is a folder, or may not be read.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ImageError(
            f"there is no file {os.fspath(path)!r}",
            fix=f"check the spelling; relative paths start from {os.getcwd()}",
        ) from error
    except IsADirectoryError as error:
        raise ImageError(
            f"{os.fspath(path)!r} is a folder, not a picture",
            fix="name the pictures in it, such as FOLDER/*.jpg",
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise ImageError(
            f"cannot read {os.fspath(path)!r}: {reason}", fix="check that you may read the file"
        ) from error


def upright_hw(data: bytes) -> tuple[int, int]:
    """Return height and width of an encoded picture after its EXIF orientation, decoding nothing if possible.

    Raises:
        ImageError: Pillow cannot read it.
    """
    image = _open(data)
    orientation = 1
    # Pillow decodes a PNG to look for an orientation behind the pixels: ask only at a sign of one.
    if image.format != "PNG" or any(mark in data for mark in _PNG_ORIENTATION_MARKS):
        orientation = _orientation(image)
    if orientation in _TURNED_BY_A_QUARTER:
        return image.width, image.height
    return image.height, image.width


def decode_upright(data: bytes) -> Image.Image:
    """Decode a picture to RGB and apply its EXIF orientation.

    Raises:
        ImageError: Pillow cannot read it.
    """
    return upright(_open(data))


def upright(image: Image.Image) -> Image.Image:
    """Return an RGB copy of a picture with its EXIF orientation applied.

    Raises:
        ImageError: its file turns out to be damaged.
    """
    _load(image)  # before the orientation: a TIFF turns itself upright there, and forgets it
    orientation = _orientation(image)
    rgb = _to_rgb(image)
    # With the orientation as its only tag: exif_transpose writes the others anew, and can fail on them.
    rgb.info.clear()
    tags = rgb.getexif()
    tags.clear()
    tags[ExifTag.Orientation] = orientation
    return ImageOps.exif_transpose(rgb)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # convert("RGB") would clip at 255 and give a white picture.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _open(data: bytes) -> Image.Image:
    # Pillow raises almost any exception on damaged bytes, so all of them are wrapped, here and below.
    try:
        image = Image.open(BytesIO(data))
        if image.format == "TIFF":
            image.load()  # turns itself upright there, and forgets the orientation
    except Exception as error:
        raise _unreadable(f"the picture of {len(data)} bytes", error) from error
    return image


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except Exception as error:
        raise _unreadable(f"the {image.format or 'given'} picture", error) from error


def _unreadable(what: str, error: Exception) -> ImageError:
    # Pillow's own sentence for this one names an object of ours by its address.
    unknown = isinstance(error, UnidentifiedImageError)
    reason = "no format that Pillow knows" if unknown else str(error) or type(error).__name__
    return ImageError(
        f"{what} cannot be read: {reason}",
        fix="check that it opens in a viewer, and is a JPEG, PNG, WebP, BMP, GIF or TIFF",
    )


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTag.Orientation, 1))
    except Exception:
        return 1  # a damaged EXIF block does not spoil the picture, here and on the server


def _png_of_picture(image: Image.Image) -> bytes:
    _load(image)
    _check_samples(image)
    # The orientation goes along as a tag, so that the server applies it as it does to files.
    tags = Image.Exif()
    tags[ExifTag.Orientation] = _orientation(image)
    return _png(image if image.mode in _PNG_MODES else image.convert("RGB"), tags)


def _png_of_array(array: npt.NDArray[np.uint8]) -> bytes:
    _check_array(array)
    return _png(Image.fromarray(np.ascontiguousarray(array)), Image.Exif())


def _check_samples(image: Image.Image) -> None:
    if image.mode in ("I", "F"):
        raise ImageError(
            f"the picture has 32-bit samples (mode {image.mode}), of which no value is known to be white",
            fix='scale it to 0 to 255, then image.convert("L")',
        )


def _check_array(array: npt.NDArray[np.uint8]) -> None:
    if not isinstance(array, np.ndarray):
        raise ImageError(
            f"a picture cannot be made of {type(array).__name__}",
            fix="give a path, the bytes of a file, a PIL.Image.Image or a uint8 array [H, W, 3]",
        )
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ImageError(
            f"the array is {array.dtype} {list(array.shape)}, not uint8 [H, W, 3]",
            fix="give RGB in [0, 255], height first, channels last",
        )


def _png(image: Image.Image, tags: Image.Exif) -> bytes:
    file = BytesIO()
    # Level 1: the bytes travel once, and a better compression takes longer than sending more of them.
    image.save(file, "PNG", compress_level=1, exif=tags)
    return file.getvalue()
