"""Pictures as they are sent, and upright as they are drawn on."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from gdino_client.picture import decode_upright, encode_picture, upright, upright_hw
from gdino_core.errors import ImageError
from tests.client.conftest import MakePicture


def test_a_file_that_is_not_there_is_named_with_the_folder_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError) as caught:
        encode_picture("no.jpg")
    assert str(caught.value) == (
        f"there is no file 'no.jpg'\n  fix: check the spelling; relative paths start from {tmp_path}"
    )


def test_a_folder_is_not_a_picture(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"is a folder, not a picture\n  fix: name the pictures in it"):
        encode_picture(tmp_path)


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not by chmod: root, as which tests run in containers, may read everything.
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ImageError, match=r"cannot read '.*locked.jpg': Permission denied\n  fix: check that you"):
        encode_picture(tmp_path / "locked.jpg")


def test_a_path_with_a_nul_is_an_image_error_and_no_traceback() -> None:
    with pytest.raises(ImageError, match="cannot read"):
        encode_picture("a\0b.jpg")


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((4, 5, 3), np.float32), r"float32 \[4, 5, 3\]"),
        (np.zeros((3, 4, 5), np.uint8), r"uint8 \[3, 4, 5\]"),
        (np.zeros((4, 5), np.uint8), r"uint8 \[4, 5\]"),
        (np.zeros((0, 5, 3), np.uint8), r"uint8 \[0, 5, 3\]"),
    ],
)
def test_an_array_of_another_layout_is_refused_and_not_guessed_at(array: np.ndarray, found: str) -> None:
    with pytest.raises(ImageError, match=rf"the array is {found}, not uint8 \[H, W, 3\]\n  fix: give RGB"):
        encode_picture(array)


def test_something_else_is_refused_with_what_is_accepted() -> None:
    with pytest.raises(ImageError, match=r"cannot be made of list\n  fix: give a path"):
        encode_picture([[0, 0, 0]])  # type: ignore[arg-type]  # what this is about


def test_a_slice_of_an_array_is_sent_as_it_looks() -> None:
    array = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    with Image.open(BytesIO(encode_picture(array[::2, ::-1]))) as sent:
        assert np.array_equal(np.asarray(sent), array[::2, ::-1])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I;16"])
def test_pillow_pictures_of_every_8_and_16_bit_mode_can_be_sent(mode: str) -> None:
    data = encode_picture(Image.new(mode, (6, 4)))
    with Image.open(BytesIO(data)) as sent:
        assert (sent.format, sent.size) == ("PNG", (6, 4))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_of_32_bits_are_refused_because_white_is_unknown(mode: str) -> None:
    with pytest.raises(ImageError, match=rf"32-bit samples \(mode {mode}\).*\n  fix: scale it"):
        encode_picture(Image.new(mode, (6, 4)))


def test_a_truncated_pillow_picture_is_an_image_error() -> None:
    file = BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "PNG")
    with pytest.raises(ImageError, match=r"the PNG picture cannot be read: .*truncated"):
        encode_picture(Image.open(BytesIO(file.getvalue()[:2000])))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_turned_picture_is_the_same_by_path_and_as_a_pillow_picture(
    make_picture: MakePicture, file_format: str, orientation: int
) -> None:
    data = make_picture(file_format, orientation=orientation)
    with Image.open(BytesIO(data)) as image:
        sent = encode_picture(image)
    from_file, from_pillow = decode_upright(data), decode_upright(sent)
    assert np.array_equal(np.asarray(from_file), np.asarray(from_pillow))
    assert upright_hw(data) == upright_hw(sent) == (from_file.height, from_file.width)
    # The red quarter is where a viewer shows it.
    red_corner = {1: "00", 2: "10", 3: "11", 4: "01", 5: "00", 6: "10", 7: "11", 8: "01"}[orientation]
    x, y = ((2, from_file.width - 3)[int(red_corner[0])], (2, from_file.height - 3)[int(red_corner[1])])
    red, green, _ = np.asarray(from_file)[y, x]
    assert red > 180 > 80 > green


def test_the_size_of_a_png_is_read_without_decoding_it(
    make_picture: MakePicture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: PngImageFile) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(PngImageFile, "load", fail)
    image = Image.new("RGB", (40, 20))
    file = BytesIO()
    image.save(file, "PNG")
    assert upright_hw(file.getvalue()) == (20, 40)
    assert upright_hw(make_picture("PNG", orientation=6)) == (40, 20)


def test_16_bit_gray_is_drawn_on_as_the_server_saw_it() -> None:
    gray = Image.fromarray(np.full((3, 3), 0x8034, np.uint16))
    assert upright(gray).getpixel((1, 1)) == (0x80, 0x80, 0x80)


def test_what_is_no_picture_is_said_with_its_size() -> None:
    with pytest.raises(ImageError, match=r"the picture of 7 bytes cannot be read: no format that Pillow knows\n"):
        upright_hw(b"garbage")
