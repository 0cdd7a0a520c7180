"""What a newcomer sees: the sample pictures through the real server, and the formats that others read."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import run as demo
from gdino_build.serve import RunningServer
from gdino_client import Client, Detection

pytestmark = pytest.mark.server

SAMPLES = Path("demo/samples")
ANNOTATIONS = json.loads((SAMPLES / "annotations.json").read_text(encoding="utf-8"))
NOTHING_ASKED_IS_THERE = "6-nothing-asked-is-there.png"


def iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    area = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return shared / (area - shared)


def wanted_objects(image: dict[str, Any]) -> list[tuple[str, tuple[float, ...]]]:
    names = {category["id"]: category["name"] for category in ANNOTATIONS["categories"]}
    return [
        (names[item["category_id"]], (x, y, x + width, y + height))
        for item in ANNOTATIONS["annotations"]
        if item["image_id"] == image["id"]
        for x, y, width, height in [item["bbox"]]
    ]


def is_found(wanted: tuple[str, tuple[float, ...]], found: list[Detection]) -> bool:
    label, box = wanted
    return any(item.label == label and iou(item.box_xyxy, box) >= 0.5 for item in found)


def test_at_least_95_percent_of_the_sample_objects_are_found_with_their_label(client: Client) -> None:
    hits = [
        is_found(wanted, found)
        for image in ANNOTATIONS["images"]
        for found in [list(client.detect(SAMPLES / image["file_name"], image["prompt"]))]
        for wanted in wanted_objects(image)
    ]
    assert len(hits) >= 20
    assert sum(hits) >= 0.95 * len(hits)


def test_nothing_is_invented_where_nothing_asked_for_is_there(client: Client) -> None:
    (image,) = (image for image in ANNOTATIONS["images"] if image["file_name"] == NOTHING_ASKED_IS_THERE)
    assert wanted_objects(image) == []
    assert list(client.detect(SAMPLES / NOTHING_ASKED_IS_THERE, image["prompt"])) == []


def test_the_demo_writes_pictures_and_the_documented_json(tmp_path: Path) -> None:
    demo.run("demo-cpu", Path("out/demo-cpu/repository"), tmp_path)
    content = json.loads((tmp_path / "detections.json").read_text(encoding="utf-8"))
    assert content["profile"] == "demo-cpu"
    assert content["server"] == {"name": "triton", "version": "2.51.0"}
    assert [image["file"] for image in content["images"]] == [image["file_name"] for image in ANNOTATIONS["images"]]
    for image, annotated in zip(content["images"], ANNOTATIONS["images"], strict=True):
        assert (image["width"], image["height"]) == (annotated["width"], annotated["height"])
        assert image["prompt"] == annotated["prompt"]
        with Image.open(tmp_path / f"{Path(image['file']).stem}.png") as drawn:
            assert drawn.size == (annotated["width"], annotated["height"])
        for item in image["detections"]:
            assert item["label"] == image["prompt"][item["label_index"]]
            assert len(item["box_xyxy"]) == 4


def test_the_command_line_prints_one_json_object_and_saves_a_picture(server: RunningServer, tmp_path: Path) -> None:
    image = ANNOTATIONS["images"][0]
    target = tmp_path / "out.png"
    labels = [part for label in image["prompt"] for part in ("--label", label)]
    command = [sys.executable, "-m", "gdino_client", "detect", str(SAMPLES / image["file_name"]), *labels]
    done = subprocess.run(
        [*command, "--save", str(target), "--json", "-", "--url", server.grpc_url],
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed.keys() == {"file", "width", "height", "prompt", "detections"}
    assert printed["prompt"] == image["prompt"]
    assert np.asarray(Image.open(target)).shape == (image["height"], image["width"], 3)
