"""A canned server and a client of it, and pictures."""

from collections.abc import Callable, Iterator
from io import BytesIO

import pytest
from PIL import Image
from PIL.ExifTags import Base as ExifTag

from gdino_client import Client
from tests.client.canned_server import CannedServer, listening

MakePicture = Callable[..., bytes]


@pytest.fixture
def server() -> Iterator[CannedServer]:
    with listening(CannedServer()) as running:
        yield running


@pytest.fixture
def client(server: CannedServer) -> Iterator[Client]:
    with Client(server.url, timeout_s=10) as connected:
        yield connected


@pytest.fixture
def make_picture() -> MakePicture:
    """Encode a picture of 40x20 (width x height) stored pixels, its upper left quarter red."""

    def make(file_format: str = "PNG", *, orientation: int = 1) -> bytes:
        image = Image.new("RGB", (40, 20), (10, 20, 30))
        image.paste((220, 40, 40), (0, 0, 20, 10))
        tags = Image.Exif()
        tags[ExifTag.Orientation] = orientation
        file = BytesIO()
        image.save(file, file_format, **({} if file_format == "BMP" else {"exif": tags}))
        return file.getvalue()

    return make
