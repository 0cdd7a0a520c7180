"""A list of labels of any length is one request, and is answered as asking for its parts one after the other."""

import json
from pathlib import Path

import numpy as np
import pytest

from gdino_build.profile import load_profile
from gdino_client import Client, RequestRejected
from gdino_core.chunks import encode_chunks

pytestmark = pytest.mark.server

PICTURE = Path("demo/samples/8-all-labels.jpg")
DEMO_LABELS = [
    category["name"] for category in json.loads(Path("demo/samples/annotations.json").read_text())["categories"]
]


def lvis_sized() -> list[str]:
    """1,203 labels: those of the demo spread among others that nothing in its pictures has."""
    labels = [f"thing number {index}" for index in range(1203)]
    for place, label in enumerate(DEMO_LABELS):
        labels[place * 50 + 7] = label
    return labels


def test_1203_labels_are_answered_as_chunk_by_chunk(client: Client) -> None:
    labels = lvis_sized()
    together = client.detect(PICTURE, labels, box_threshold=0.01, max_detections=10_000, timeout_s=120)
    rows = []
    offset = 0
    settings = load_profile("demo-cpu").preprocess
    for prompt in encode_chunks(tuple(labels), settings.text_buckets, settings.max_prompts):
        chunk = list(prompt.labels or ())
        found = client.detect(PICTURE, chunk, box_threshold=0.01, max_detections=10_000)
        rows += [(offset + one.label_index, one.label, one.score, *one.box_xyxy) for one in found]
        offset += len(chunk)
    assert offset == 1203
    assert len(rows) >= 50
    rows.sort()
    got = sorted((one.label_index, one.label, one.score, *one.box_xyxy) for one in together)
    assert [row[:2] for row in got] == [row[:2] for row in rows]
    np.testing.assert_allclose([row[2] for row in got], [row[2] for row in rows], atol=1e-5)
    np.testing.assert_allclose([row[3:] for row in got], [row[3:] for row in rows], atol=0.01)  # pixels
    assert (np.diff(together.scores) <= 0).all()
    assert all(labels[one.label_index] == one.label for one in together)
    found_labels = {one.label for one in together if one.score > 0.5}
    assert found_labels & set(DEMO_LABELS)


def test_the_limits_hold_over_all_chunks(client: Client) -> None:
    labels = [*DEMO_LABELS, *lvis_sized()[:300]]
    everything = client.detect(PICTURE, labels, box_threshold=0.01, max_detections=10_000)
    best = client.detect(PICTURE, labels, box_threshold=0.01, max_detections=9)
    assert len(everything) > 9
    assert best.scores.tolist() == everything.scores[:9].tolist()
    thinned = client.detect(PICTURE, labels, box_threshold=0.01, nms_iou=0.5, max_detections=10_000)
    assert 0 < len(thinned) < len(everything)


def test_duplicates_substrings_case_and_unicode_are_labels_of_their_own(client: Client) -> None:
    labels = ["circle", "red circle", "RED Circle", "red circle", "röd cirkel", "圆"]
    found = client.detect(PICTURE, labels, box_threshold=0.0, max_detections=100_000)
    by_label: dict[int, list[float]] = {index: [] for index in range(len(labels))}
    for one in found:
        assert one.label == labels[one.label_index]
        by_label[one.label_index].append(one.score)
    assert by_label[1] == by_label[2] == by_label[3]  # the model reads lower case
    assert all(by_label.values())


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ([f"label number {index} of too many" for index in range(4000)], "split the labels over several requests"),
        (["cat", "long " * 300], "alone has 300 tokens"),
        (["cat", ""], "has no token"),
        (" . ".join(["a thing"] * 200), "shorten the caption"),
    ],
)
def test_what_is_too_long_is_refused_with_its_limit(client: Client, prompt: str | list[str], said: str) -> None:
    with pytest.raises(Exception, match=said) as caught:
        client.detect(PICTURE, prompt)
    assert isinstance(caught.value, RequestRejected) or said == "has no token"
