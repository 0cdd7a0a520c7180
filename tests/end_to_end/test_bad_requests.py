"""Bad input gets a sentence that helps, on the request that caused it, and nothing else is lost."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gdino_client import Client, Detections, RequestRejected
from gdino_client.picture import ImageSource

pytestmark = pytest.mark.server

GOOD = Path("demo/samples/1-landscape.jpg")
PROMPT = ["yellow circle", "orange star", "purple square"]


def answer(client: Client, image: ImageSource) -> Detections | RequestRejected:
    try:
        return client.detect(image, PROMPT)
    except RequestRejected as error:
        return error


def test_garbage_beside_good_pictures_is_refused_alone(client: Client) -> None:
    alone = client.detect(GOOD, PROMPT)
    truncated = GOOD.read_bytes()[:2000]
    sent: list[ImageSource] = [GOOD, b"this is no picture", GOOD, truncated, GOOD, b"\xff\xd8\xff\xe0garbage", GOOD]
    with ThreadPoolExecutor(len(sent)) as pool:
        answers = list(pool.map(lambda image: answer(client, image), sent))
    for image, got in zip(sent, answers, strict=True):
        if image is GOOD:
            assert isinstance(got, Detections)
            assert got.labels == alone.labels
            np.testing.assert_allclose(
                got.boxes_xyxy, alone.boxes_xyxy, atol=0.01
            )  # pixels; batches sum in other orders
            np.testing.assert_allclose(got.scores, alone.scores, atol=1e-5)
        else:
            assert isinstance(got, RequestRejected)
            assert "picture" in str(got)
            assert "JPEG" in str(got)  # says what is accepted
    assert client.status().ready


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"box_threshold": float("nan")}, "BOX_THRESHOLD"),
        ({"box_threshold": 1.5}, "BOX_THRESHOLD"),
        ({"text_threshold": float("inf")}, "TEXT_THRESHOLD"),
        ({"nms_iou": 0.0}, "NMS_IOU"),
        ({"max_detections": 0}, "MAX_DETECTIONS"),
    ],
)
def test_an_impossible_option_is_refused_by_name(client: Client, options: dict[str, float], said: str) -> None:
    with pytest.raises(RequestRejected, match=said):
        client.detect(GOOD, PROMPT, **options)  # type: ignore[arg-type]  # max_detections is a whole number
    assert len(client.detect(GOOD, PROMPT)) >= 0


def test_a_prompt_of_too_many_tokens_is_refused_with_both_numbers(client: Client) -> None:
    with pytest.raises(RequestRejected, match="256"):
        client.detect(GOOD, " . ".join(f"thing number {n}" for n in range(100)))


def test_options_change_the_answer_as_they_say(client: Client) -> None:
    everything = client.detect(GOOD, PROMPT, box_threshold=0.0)
    assert len(everything) > 50
    assert (np.diff(everything.scores) <= 0).all()
    assert len(client.detect(GOOD, PROMPT, box_threshold=0.0, max_detections=7)) == 7
    assert len(client.detect(GOOD, PROMPT, box_threshold=0.0, nms_iou=0.5)) < len(everything)
    assert len(client.detect(GOOD, PROMPT, box_threshold=1.0)) == 0
