"""Turn an encoded picture into the pixels that the detector reads.

Source: GroundingDINO, groundingdino/datasets/transforms.py, resize(), and groundingdino/util/inference.py,
load_image(). Beyond the original: EXIF orientation is applied, and 16-bit gray is scaled instead of clipped to
white.
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import IO, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ExifTags import Base as ExifTag
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from gdino_core.errors import ConfigError, ImageError
from gdino_core.settings import PreprocessSettings

# Called directly, because Image.open warns and raises by a process-wide limit before ours can speak.
_OPENERS: Final[dict[str, Callable[[IO[bytes]], ImageFile.ImageFile]]] = {
    "JPEG": jpeg_factory,
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "TIFF": TiffImageFile,
}
# Name, offset, bytes. The formats that are not accepted are here to name what was sent by mistake.
_SIGNATURES: Final = (
    ("JPEG", 0, b"\xff\xd8\xff"),
    ("PNG", 0, b"\x89PNG\r\n\x1a\n"),
    ("WebP", 8, b"WEBP"),
    ("BMP", 0, b"BM"),
    ("TIFF", 0, b"II\x2a\x00"),
    ("TIFF", 0, b"MM\x00\x2a"),
    ("TIFF", 0, b"II\x2b\x00"),
    ("TIFF", 0, b"MM\x00\x2b"),
    ("GIF", 0, b"GIF8"),
    ("AVIF", 4, b"ftypavi"),
    ("HEIC", 4, b"ftyphei"),
    ("HEIC", 4, b"ftypmif1"),
    ("MP4", 4, b"ftyp"),
    ("JPEG 2000", 4, b"jP  "),
    ("JPEG XL", 0, b"\xff\x0a"),
    ("JPEG XL", 4, b"JXL "),
    ("Photoshop", 0, b"8BPS"),
    ("PDF", 0, b"%PDF"),
    ("ZIP", 0, b"PK\x03\x04"),
    ("gzip", 0, b"\x1f\x8b"),
    ("HTML, XML or SVG", 0, b"<"),
    ("data URL", 0, b"data:"),
    ("base64 text", 0, b"/9j/"),
    ("base64 text", 0, b"iVBORw0KGgo"),
)
_ACCEPTED: Final = "send the bytes of a JPEG, PNG, WebP, BMP, GIF or TIFF file"
_TRANSPOSE_BY_ORIENTATION: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedImage:
    """A picture as the detector reads it.

    Attributes:
        pixels: uint8 [3, H, W], RGB in [0, 255], C-contiguous; the picture is at the top left, the rest is 0.
        valid_hw: int32 [2], height and width of the picture inside `pixels`.
        image_hw: int32 [2], height and width of the picture as it is looked at (after EXIF orientation).
    """

    pixels: npt.NDArray[np.uint8]
    valid_hw: npt.NDArray[np.int32]
    image_hw: npt.NDArray[np.int32]


def preprocess_image(data: bytes, settings: PreprocessSettings) -> PreparedImage:
    """Decode, resize and pad an encoded picture.

    Raises:
        ImageError: the bytes are no picture that is accepted, are damaged or over a limit, or it is too thin.
    """
    return prepare_image(decode_image(data, settings), settings)


def preprocess_pixels(pixels: npt.NDArray[np.uint8], settings: PreprocessSettings) -> PreparedImage:
    """Resize and pad a picture that is decoded already.

    Args:
        pixels: uint8 [H, W, 3], RGB in [0, 255].
        settings: sizes, buckets and limits.

    Raises:
        ImageError: it has no or too many pixels, or is too thin.
    """
    height, width = pixels.shape[:2]
    _check_pixels("raw", (height, width), settings)
    return prepare_image(Image.fromarray(pixels), settings)


def prepare_image(image: Image.Image, settings: PreprocessSettings) -> PreparedImage:
    """Resize an RGB picture and pad it at the bottom and right to its bucket.

    Raises:
        ImageError: it is too thin.
    """
    image_hw = (image.height, image.width)
    height, width = resized_hw(image_hw, settings.short_side, settings.long_side)
    bucket_h, bucket_w = choose_bucket((height, width), settings.resolution_buckets)
    # torchvision's F.resize of a Pillow image is this call: the pixels equal the original's to the last bit.
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.zeros((3, bucket_h, bucket_w), dtype=np.uint8)
    pixels[:, :height, :width] = np.asarray(resized).transpose(2, 0, 1)  # HWC -> CHW
    return PreparedImage(
        pixels=pixels,
        valid_hw=np.array((height, width), dtype=np.int32),
        image_hw=np.array(image_hw, dtype=np.int32),
    )


def decode_image(data: bytes, settings: PreprocessSettings) -> Image.Image:
    """Decode a picture to RGB and turn it upright.

    Alpha is dropped and palettes, gray and CMYK are converted as Pillow's convert("RGB") does, which the
    original uses; of 16-bit gray the high byte is kept; of an animation the first frame.

    Args:
        data: a whole JPEG, PNG, WebP, BMP, GIF or TIFF file.
        settings: its limits are checked before pixels are decoded.

    Raises:
        ImageError: the bytes are no picture that is accepted, are damaged, or are over a limit.
    """
    name = _check_format(data, settings.max_image_bytes)
    # Pillow's decoders raise almost any exception on damaged bytes, so all of them are wrapped.
    try:
        image = _OPENERS[name](BytesIO(data))
    except Exception as error:
        raise _damaged(name, data, error) from error
    _check_pixels(name, (image.height, image.width), settings)
    try:
        image.load()
        upright = _upright(_to_rgb(image), image)
    except ImageError:
        raise
    except Exception as error:
        raise _damaged(name, data, error) from error
    return upright


def resized_hw(image_hw: tuple[int, int], short_side: int, long_side: int) -> tuple[int, int]:
    """Return the height and width that the original resizes a picture to.

    The original rounds the short side before it takes the long one from it, so that the long side of a very
    thin picture can be up to twice `long_side` (settings.longest_resized_side).

    Args:
        image_hw: height and width of the picture, 1 or more.
        short_side: pixels wanted for the short side.
        long_side: pixels at which the long side stops growing and the short side gives way.

    Raises:
        ImageError: the short side would have no pixel left; the original fails there too.

    Source: GroundingDINO, groundingdino/datasets/transforms.py, resize(), get_size_with_aspect_ratio().
    """
    height, width = image_hw
    short, long = min(image_hw), max(image_hw)
    size = short_side
    if long / short * size > long_side:
        size = round(long_side * short / long)
    if size == 0:
        raise ImageError(
            f"the picture of {height}x{width} (height x width) is too thin: at a long side of {long_side} "
            "not half a pixel is left of the short one",
            fix=f"cut it into pieces that are less than {2 * long_side} times as long as they are wide",
        )
    if short == size:
        return height, width
    return (int(size * height / width), size) if width < height else (size, int(size * width / height))


def choose_bucket(resized_hw: tuple[int, int], buckets: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """Return the bucket (H, W) of the smallest area that holds a picture, the first of equals.

    Raises:
        ConfigError: none holds it, which PreprocessSettings rules out for sizes from resized_hw().
    """
    height, width = resized_hw
    holding = [bucket for bucket in buckets if bucket[0] >= height and bucket[1] >= width]
    if not holding:
        listed = ", ".join(f"{bucket_h}x{bucket_w}" for bucket_h, bucket_w in buckets)
        raise ConfigError(
            f"no resolution bucket holds {height}x{width} (height x width); there are {listed}",
            fix="add a bucket to resolution_buckets in the build profile",
        )
    return min(holding, key=lambda bucket: bucket[0] * bucket[1])


def _check_format(data: bytes, max_image_bytes: int) -> str:
    if not data:
        raise ImageError("IMAGE is empty: 0 bytes", fix=_ACCEPTED)
    if len(data) > max_image_bytes:
        raise ImageError(
            f"IMAGE has {len(data)} bytes, the limit is {max_image_bytes}",
            fix="compress the picture or make it smaller",
        )
    name = _sniff(data)
    if name not in _OPENERS:
        looks_like = f"look like {name}" if name else "are of no known format"
        raise ImageError(f"IMAGE is not a picture: {len(data)} bytes that {looks_like}, {data[:16]!r}", fix=_ACCEPTED)
    return name


def _check_pixels(name: str, image_hw: tuple[int, int], settings: PreprocessSettings) -> None:
    height, width = image_hw
    if not 1 <= height * width <= settings.max_image_pixels:
        raise ImageError(
            f"the {name} picture has {width}x{height} = {width * height} pixels, "
            f"the limit is {settings.max_image_pixels}",
            fix="send a smaller picture; the model sees at most "
            f"{settings.short_side}x{settings.long_side} pixels of it",
        )


def _sniff(data: bytes) -> str:
    for name, offset, signature in _SIGNATURES:
        if data.startswith(signature, offset):
            return name
    return ""


def _damaged(name: str, data: bytes, error: Exception) -> ImageError:
    return ImageError(
        f"the {name} picture of {len(data)} bytes cannot be decoded: {str(error) or type(error).__name__}",
        fix="check that the whole file was sent and opens in a viewer",
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # convert("RGB") would clip at 255 and give a white picture; of 16-bit RGB Pillow keeps this byte too.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ImageError(
            f"the picture has 32-bit samples (mode {image.mode}), of which no value is known to be white",
            fix="convert it to 8 or 16 bits a sample",
        )
    # Transparency is dropped either way; left in, Pillow warns when a palette has it.
    image.info.pop("transparency", None)
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(rgb: Image.Image, source: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it also writes the EXIF block anew, which can fail on unrelated tags.
    # Read after load(): TIFF turns itself upright there and forgets the tag, PNG can have EXIF last.
    try:
        method = _TRANSPOSE_BY_ORIENTATION.get(source.getexif().get(ExifTag.Orientation, 1))
    except Exception:
        method = None  # a damaged EXIF block does not spoil the picture
    return rgb if method is None else rgb.transpose(method)
