"""Client.detect: what travels to the server, and what is made of its answer."""

import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gdino_client import Client, ModelUnavailable, ServerError, ServerUnavailable, ThresholdError
from tests.client.canned_server import CannedServer, answer, listening
from tests.client.conftest import MakePicture


def test_the_bytes_of_a_file_travel_unchanged(
    server: CannedServer, client: Client, make_picture: MakePicture, tmp_path: Path
) -> None:
    data = make_picture("JPEG")
    (tmp_path / "picture.jpg").write_bytes(data)
    for image in (tmp_path / "picture.jpg", str(tmp_path / "picture.jpg"), data, memoryview(data)):
        client.detect(image, "cat .")
        assert server.requests[-1]["IMAGE"].tolist() == [[data]]
        assert server.requests[-1]["model"] == "grounding_dino"


def test_arrays_and_pillow_pictures_travel_without_loss(server: CannedServer, client: Client) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)
    for image in (pixels, Image.fromarray(pixels)):
        assert client.detect(image, "cat .").image_hw == (7, 11)
        with Image.open(BytesIO(server.requests[-1]["IMAGE"][0, 0])) as sent:
            assert np.array_equal(np.asarray(sent), pixels)


def test_a_picture_of_several_megabytes_travels(server: CannedServer, client: Client) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1300, 1300, 3), dtype=np.uint8)
    client.detect(noise, "cat .")
    assert len(server.requests[-1]["IMAGE"][0, 0]) > 4 * 2**20


def test_a_caption_is_one_element_and_labels_are_one_each(
    server: CannedServer, client: Client, make_picture: MakePicture
) -> None:
    client.detect(make_picture(), "Red circle . blue star .")
    assert server.requests[-1]["PROMPT"].tolist() == [[b"Red circle . blue star ."]]
    client.detect(make_picture(), ["Größe", "blue star"])
    assert server.requests[-1]["PROMPT"].tolist() == [["Größe".encode(), b"blue star"]]


def test_options_are_sent_only_when_given(server: CannedServer, client: Client, make_picture: MakePicture) -> None:
    client.detect(make_picture(), "cat .")
    assert set(server.requests[-1]) == {"model", "IMAGE", "PROMPT"}
    client.detect(
        make_picture(),
        "cat .",
        box_threshold=0.0,
        text_threshold=0.5,
        nms_iou=0.75,
        max_detections=7,
        remove_combined=True,
    )
    sent = server.requests[-1]
    assert {name: sent[name].tolist() for name in set(sent) - {"model", "IMAGE", "PROMPT"}} == {
        "BOX_THRESHOLD": [[0.0]],
        "TEXT_THRESHOLD": [[0.5]],
        "NMS_IOU": [[0.75]],
        "MAX_DETECTIONS": [[7]],
        "REMOVE_COMBINED": [[True]],
    }


def test_a_count_beyond_32_bits_is_refused_before_it_is_sent(
    server: CannedServer, client: Client, make_picture: MakePicture
) -> None:
    with pytest.raises(ThresholdError, match=r"max_detections is 4294967297\n  fix: give 1 or more"):
        client.detect(make_picture(), "cat .", max_detections=2**32 + 1)
    assert not server.requests


def test_the_answer_keeps_the_servers_order_and_labels(
    server: CannedServer, client: Client, make_picture: MakePicture
) -> None:
    server.outputs = answer(["blå stjerne", "cat"], [0.9, 0.5], [(1, 2, 3, 4), (5, 6, 7.5, 8)], [1, 0])
    found = client.detect(make_picture(), ["cat", "blå stjerne"])
    assert found.labels == ("blå stjerne", "cat")
    assert found.scores.dtype == np.float32
    assert found.scores.tolist() == pytest.approx([0.9, 0.5])
    assert found.boxes_xyxy.dtype == np.float32
    assert found.boxes_xyxy.tolist() == [[1, 2, 3, 4], [5, 6, 7.5, 8]]
    assert found.label_index.dtype == np.int32
    assert found.label_index.tolist() == [1, 0]
    assert found.prompt == ("cat", "blå stjerne")


def test_finding_nothing_is_an_answer(server: CannedServer, client: Client, make_picture: MakePicture) -> None:
    found = client.detect(make_picture(), "cat .")
    assert (len(found), list(found), found.boxes_xyxy.shape) == (0, [], (0, 4))


def test_a_list_of_one_label_gets_that_label_back_and_not_the_models_phrase(
    server: CannedServer, client: Client, make_picture: MakePicture
) -> None:
    server.outputs = answer(["red circle", "circle"], [0.9, 0.5], [(1, 2, 3, 4)] * 2, [-1, -1])
    labelled = client.detect(make_picture(), ["Red Circle"])
    assert labelled.labels == ("Red Circle", "Red Circle")
    assert labelled.label_index.tolist() == [0, 0]
    captioned = client.detect(make_picture(), "Red Circle")
    assert captioned.labels == ("red circle", "circle")
    assert captioned.label_index.tolist() == [-1, -1]
    assert server.requests[0]["PROMPT"].tolist() == server.requests[1]["PROMPT"].tolist() == [[b"Red Circle"]]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(("orientation", "upright_hw"), [(1, (20, 40)), (3, (20, 40)), (6, (40, 20))])
def test_the_size_is_that_of_the_upright_picture(
    client: Client, make_picture: MakePicture, file_format: str, orientation: int, upright_hw: tuple[int, int]
) -> None:
    data = make_picture(file_format, orientation=orientation)
    assert client.detect(data, "cat .").image_hw == upright_hw
    with Image.open(BytesIO(data)) as image:
        assert client.detect(image, "cat .").image_hw == upright_hw


def test_the_contract_version_is_asked_for_once(
    server: CannedServer, client: Client, make_picture: MakePicture
) -> None:
    for _ in range(3):
        client.detect(make_picture(), "cat .")
    assert server.config_requests == 1


@pytest.mark.parametrize(("parameters", "found"), [({"contract_version": "2"}, "2"), ({}, "none")])
def test_models_of_another_contract_are_not_asked(
    server: CannedServer, client: Client, make_picture: MakePicture, parameters: dict[str, str], found: str
) -> None:
    server.parameters = parameters
    message = f"grounding_dino at {server.url} has contract version {found}, this client speaks 1\n  fix: install"
    with pytest.raises(ModelUnavailable, match=message):
        client.detect(make_picture(), "cat .")
    assert not server.requests


def test_an_answer_without_a_tensor_is_an_error_that_names_it(
    server: CannedServer, client: Client, make_picture: MakePicture
) -> None:
    server.outputs = answer()
    del server.outputs["LABEL_INDEX"]
    with pytest.raises(ServerError, match="the answer has no tensor LABEL_INDEX"):
        client.detect(make_picture(), "cat .")


def test_an_answer_whose_tensors_disagree_is_an_error_that_shows_the_shapes(
    server: CannedServer, client: Client, make_picture: MakePicture
) -> None:
    server.outputs = answer(["cat"], [0.9, 0.5], [(1, 2, 3, 4)] * 2, [0, 0])
    with pytest.raises(ServerError, match=r"\[\[1, 2, 4\], \[1, 2\], \[1, 1\], \[1, 2\]\]"):
        client.detect(make_picture(), "cat .")


def test_a_server_that_comes_back_is_found_by_the_same_client(make_picture: MakePicture) -> None:
    with listening(CannedServer()) as first:
        url = first.url
        client = Client(url, timeout_s=10)
        client.detect(make_picture(), "cat .")
    with pytest.raises(ServerUnavailable):
        client.detect(make_picture(), "cat .")
    with listening(CannedServer(), url) as second, client:
        _detect_until_answered(client, make_picture())
        assert second.requests


def _detect_until_answered(client: Client, picture: bytes) -> None:
    deadline = time.monotonic() + 8
    while True:
        try:
            client.detect(picture, "cat .")
            return
        except ServerUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
