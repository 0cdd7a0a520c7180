"""Pictures of every accepted kind are read upright, and everything else is refused with a sentence."""

import base64
import struct
import zlib
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

import gdino_core.image
from gdino_core.errors import ImageError
from gdino_core.image import decode_image, preprocess_image
from gdino_core.settings import PreprocessSettings

SETTINGS = PreprocessSettings(
    short_side=64, long_side=96, resolution_buckets=((64, 96), (96, 64), (64, 192), (192, 64))
)
FORMATS = ("JPEG", "PNG", "WebP", "BMP", "GIF", "TIFF")
ORIENTATION = 0x0112
# Four colours, one a corner: every flip and rotation shows.
CORNERS = (
    (250, 5, 5),
    (5, 250, 5),
    (5, 5, 250),
    (250, 250, 5),
)  # top left, top right, bottom left, bottom right


def four_corners(width: int = 48, height: int = 32) -> Image.Image:
    image = Image.new("RGB", (width, height))
    for index, colour in enumerate(CORNERS):
        x, y = index % 2 * width // 2, index // 2 * height // 2
        image.paste(colour, (x, y, x + width // 2, y + height // 2))
    return image


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def check_upright(image: Image.Image, tolerance: int = 12) -> None:
    assert image.mode == "RGB"
    assert image.size == (48, 32)
    pixels = np.asarray(image).astype(int)
    for (y, x), colour in zip(((4, 4), (4, -5), (-5, 4), (-5, -5)), CORNERS, strict=True):
        assert np.abs(pixels[y, x] - colour).max() <= tolerance


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and has no pixels at all."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    idat = b"IDAT"
    return b"\x89PNG\r\n\x1a\n" + data + struct.pack(">I", 0) + idat + struct.pack(">I", zlib.crc32(idat))


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_accepted_format_is_read(image_format: str) -> None:
    check_upright(decode_image(encode(four_corners(), image_format, quality=95), SETTINGS))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WebP", "TIFF"])
def test_a_picture_from_a_turned_phone_is_read_upright(image_format: str, orientation: int) -> None:
    transpose = Image.Transpose
    # What the camera stored so that the viewer's operation gives the upright picture: its inverse.
    stored = {
        2: transpose.FLIP_LEFT_RIGHT,
        3: transpose.ROTATE_180,
        4: transpose.FLIP_TOP_BOTTOM,
        5: transpose.TRANSPOSE,
        6: transpose.ROTATE_90,
        7: transpose.TRANSVERSE,
        8: transpose.ROTATE_270,
    }
    image = four_corners()
    if orientation in stored:
        image = image.transpose(stored[orientation])
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(image, image_format, exif=exif, quality=95)
    check_upright(decode_image(data, SETTINGS))
    assert preprocess_image(data, SETTINGS).image_hw.tolist() == [32, 48]


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0garbage", b"\xff"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_does_not_spoil_the_picture(exif: bytes) -> None:
    check_upright(decode_image(encode(four_corners(), "JPEG", exif=exif, quality=95), SETTINGS))
    check_upright(decode_image(encode(four_corners(), "WebP", exif=exif, quality=95), SETTINGS))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    check_upright(decode_image(encode(four_corners(), "PNG", exif=exif), SETTINGS))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_the_rgb_that_the_original_sees(mode: str) -> None:
    image = four_corners().convert(mode)
    data = encode(image, "TIFF" if mode in ("CMYK", "YCbCr") else "PNG")
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(np.asarray(decode_image(data, SETTINGS)), expected)


def test_alpha_is_dropped_not_blended_as_in_the_original() -> None:
    image = four_corners()
    image.putalpha(0)
    check_upright(decode_image(encode(image, "PNG"), SETTINGS), tolerance=0)
    check_upright(decode_image(encode(image, "WebP", lossless=True, exact=True), SETTINGS), tolerance=0)


def test_a_palette_with_transparency_is_read_without_a_warning() -> None:
    image = four_corners().quantize(16)
    check_upright(decode_image(encode(image, "PNG", transparency=b"\0\x80"), SETTINGS))


def test_a_progressive_cmyk_jpeg_is_read() -> None:
    check_upright(decode_image(encode(four_corners().convert("CMYK"), "JPEG", progressive=True, quality=95), SETTINGS))


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_sixteen_bit_gray_is_scaled_and_not_clipped_to_white(image_format: str) -> None:
    samples = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    image = decode_image(encode(Image.fromarray(samples), image_format), SETTINGS)
    assert np.asarray(image).tolist() == [[[value] * 3 for value in (0, 0, 1, 128, 255)]]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_samples_without_a_known_white_are_refused(dtype: type[np.generic]) -> None:
    data = encode(Image.fromarray(np.ones((4, 4), dtype=dtype)), "TIFF")
    with pytest.raises(ImageError, match="32-bit samples"):
        decode_image(data, SETTINGS)


@pytest.mark.parametrize("image_format", ["PNG", "WebP", "GIF", "TIFF", "MPO"])  # MPO: what many phones call JPEG
def test_the_first_frame_of_an_animation_is_taken(image_format: str) -> None:
    others = [Image.new("RGB", (48, 32), (index, 0, 0)) for index in (1, 200)]
    data = encode(four_corners(), image_format, save_all=True, append_images=others, lossless=True)
    check_upright(decode_image(data, SETTINGS))


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_truncated_picture_is_named_with_its_bytes(image_format: str) -> None:
    data = encode(Image.effect_noise((200, 100), 90).convert("RGB"), image_format)
    half = data[: len(data) // 2]
    with pytest.raises(ImageError, match=f"the {image_format} picture of {len(half)} bytes cannot be decoded: ."):
        decode_image(half, SETTINGS)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"hello", "5 bytes that are of no known format, b'hello'"),
        (bytes(1000), "1000 bytes that are of no known format"),
        (encode(four_corners(), "ICO"), "no known format"),
        (encode(four_corners(), "PDF"), "look like PDF"),
        (base64.b64encode(encode(four_corners(), "PNG")), "look like base64 text"),
        (base64.b64encode(encode(four_corners(), "JPEG")), "look like base64 text"),
        (b"data:image/png;base64,iVBORw0KGgo", "look like data URL"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "look like HEIC"),
        (b"<svg xmlns=", "look like HTML, XML or SVG"),
        (b"/home/me/cat.jpg", "no known format, b'/home/me/cat.jpg'"),
    ],
)
def test_what_is_no_accepted_picture_is_described(data: bytes, found: str) -> None:
    with pytest.raises(ImageError, match=found) as caught:
        decode_image(data, SETTINGS)
    assert caught.value.fix == "send the bytes of a JPEG, PNG, WebP, BMP, GIF or TIFF file"


def test_no_bytes_at_all_are_refused() -> None:
    with pytest.raises(ImageError, match="IMAGE is empty: 0 bytes"):
        decode_image(b"", SETTINGS)


def test_too_many_bytes_are_refused_before_a_decoder_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(four_corners(), "BMP")
    check_upright(decode_image(data, replace(SETTINGS, max_image_bytes=len(data))))
    monkeypatch.setattr(gdino_core.image, "_OPENERS", {})  # whoever asks for one gets a KeyError
    with pytest.raises(ImageError, match=f"IMAGE has {len(data)} bytes, the limit is {len(data) - 1}"):
        decode_image(data, replace(SETTINGS, max_image_bytes=len(data) - 1))


@pytest.mark.parametrize("side", [10_000, 11_000, 50_000])
def test_a_decompression_bomb_is_refused_by_its_header_without_a_warning(side: int) -> None:
    # 10,000, 11,000 and 50,000 squared: below Pillow's own limit of 89 million, above it, above twice it.
    with pytest.raises(ImageError, match=f"{side}x{side} = {side * side} pixels, the limit is 67108864"):
        decode_image(png_header(side, side), SETTINGS)


@pytest.mark.parametrize("image_format", FORMATS)
def test_no_pixel_of_too_large_a_picture_is_decoded(image_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: ImageFile.ImageFile) -> None:
        raise RuntimeError("pixels are decoded")

    for opener in (ImageFile.ImageFile, TiffImageFile, WebPImageFile):  # those with a load() of their own
        monkeypatch.setattr(opener, "load", load)
    data = encode(four_corners(), image_format)
    with pytest.raises(ImageError, match="48x32 = 1536 pixels, the limit is 1535"):
        decode_image(data, replace(SETTINGS, max_image_pixels=1535))
    with pytest.raises(ImageError, match="pixels are decoded"):  # within the limit they would be
        decode_image(data, replace(SETTINGS, max_image_pixels=1536))


def test_the_limit_of_pixels_is_ours_and_pillows_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Image.open would raise
    data = encode(four_corners(), "PNG")
    check_upright(decode_image(data, replace(SETTINGS, max_image_pixels=48 * 32)))
    with pytest.raises(ImageError, match="48x32 = 1536 pixels, the limit is 1535"):
        decode_image(data, replace(SETTINGS, max_image_pixels=48 * 32 - 1))
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize("size", [(1, 1), (1, 191), (191, 1), (2, 255)])
def test_tiny_and_thin_pictures_are_prepared(size: tuple[int, int]) -> None:
    prepared = preprocess_image(encode(Image.new("RGB", size, (9, 9, 9)), "PNG"), SETTINGS)
    assert prepared.image_hw.tolist() == [size[1], size[0]]
    height, width = prepared.valid_hw.tolist()
    assert (prepared.pixels[:, :height, :width] == 9).all()
    assert min(height, width) >= 1


@pytest.mark.parametrize("size", [(1, 192), (192, 1), (1, 5000)])
def test_a_picture_of_which_no_pixel_would_be_left_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=f"{size[1]}x{size[0]} .* is too thin.*\n  fix: cut it .* less than 192 times"):
        preprocess_image(encode(Image.new("RGB", size), "PNG"), SETTINGS)


@settings(max_examples=300)
@pytest.mark.filterwarnings("ignore")  # Pillow warns about some damage before it decodes
@given(
    image_format=st.sampled_from(FORMATS),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=20),
    keep=st.floats(0, 1),
)
def test_damaged_bytes_give_a_picture_or_an_image_error(
    image_format: str, damage: list[tuple[float, int]], keep: float
) -> None:
    data = bytearray(encode(four_corners(), image_format))
    for where, value in damage:
        data[int(where * len(data))] = value
    try:
        image = decode_image(bytes(data[: max(1, int(keep * len(data)))]), replace(SETTINGS, max_image_pixels=2**20))
    except ImageError as error:
        assert error.fix
    else:
        assert image.mode == "RGB"
