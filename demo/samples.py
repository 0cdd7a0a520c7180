"""Make the sample pictures and their annotations in COCO format.

    python demo/samples.py --out demo/samples

Boxes and sizes in annotations.json refer to the upright picture, after its EXIF orientation has been applied.
Each image carries the labels to ask for under "prompt"; only objects whose label is asked for are annotated.
"""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from batches import SAMPLES_STREAM, stream
from scenes import LABELS, Scene, boxes_xyxy, random_scene, render

SEED = 0
EXIF_ORIENTATION_TAG = 0x0112
EXIF_ROTATE_CLOCKWISE = 6  # the picture is shown after a quarter turn clockwise
FIRST_CATEGORY_ID = 1
OBJECT_COUNTS = range(4, 7)
SMALLEST_ACROSS = 0.18
LEAST_GAP = 0.02  # between boxes, in short sides


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one sample shows.

    Attributes:
        file_name: its suffix chooses the format.
        image_hw: of the upright picture.
        absent: how many labels to ask for that are not in the picture.
        ask_present: whether to ask for those that are; false for a picture in which nothing is to be found.
        leave_out: whether one of them is left out, so that one object is background.
        noisy: whether the background has noise; PNG stays small without.
        rotated: whether the file is stored turned, with the EXIF orientation that turns it back.
    """

    file_name: str
    image_hw: tuple[int, int]
    absent: int
    ask_present: bool = True
    leave_out: bool = False
    noisy: bool = False
    rotated: bool = False


SAMPLES = (
    Sample(file_name="1-landscape.jpg", image_hw=(480, 640), absent=3, noisy=True),
    Sample(file_name="2-wide.png", image_hw=(480, 853), absent=4, leave_out=True),
    Sample(file_name="3-portrait.webp", image_hw=(640, 480), absent=3, noisy=True),
    Sample(file_name="4-square.jpg", image_hw=(512, 512), absent=4, noisy=True, leave_out=True),
    Sample(file_name="5-exif-rotated.jpg", image_hw=(720, 540), absent=3, rotated=True),
    Sample(file_name="6-nothing-asked-is-there.png", image_hw=(480, 720), absent=6, ask_present=False),
    Sample(file_name="7-large.webp", image_hw=(900, 1200), absent=5),
    Sample(file_name="8-all-labels.jpg", image_hw=(600, 1000), absent=len(LABELS)),
)


def clear_scene(index: int, aspect: float) -> Scene:
    """First scene of a sample's stream whose objects are large, apart and of different labels.

    Args:
        index: of the sample.
        aspect: width / height.

    Returns:
        The scene; the same arguments give the same one.
    """
    rng = stream(SAMPLES_STREAM, SEED, index)
    while True:
        scene = random_scene(rng, aspect)
        distinct = len(set(scene.labels)) == len(scene.objects)
        large = all(thing.across >= SMALLEST_ACROSS for thing in scene.objects)
        if len(scene.objects) in OBJECT_COUNTS and distinct and large and _are_apart(scene):
            return scene


def choose_prompt(sample: Sample, scene: Scene, index: int) -> list[str]:
    """Labels to ask for in random order: those in the picture as the sample says, and some that are not."""
    rng = stream(SAMPLES_STREAM, SEED, index, 1)
    present = list(scene.labels[1:] if sample.leave_out else scene.labels) if sample.ask_present else []
    missing = [label for label in LABELS if label not in scene.labels]
    absent = [missing[choice] for choice in rng.permutation(len(missing))[: sample.absent]]
    asked = present + absent
    return [asked[choice] for choice in rng.permutation(len(asked))]


def save_sample(sample: Sample, scene: Scene, path: Path) -> None:
    """Draw a scene into an encoded file."""
    picture = Image.fromarray(render(scene, *sample.image_hw))
    exif = Image.Exif()
    if sample.rotated:
        picture = picture.transpose(Image.Transpose.ROTATE_90)  # counter-clockwise: what the orientation undoes
        exif[EXIF_ORIENTATION_TAG] = EXIF_ROTATE_CLOCKWISE
    options: dict[str, Any] = {".png": {"optimize": True}}.get(path.suffix, {"quality": 92})
    picture.save(path, exif=exif, **options)


def annotate(sample: Sample, scene: Scene, prompt: list[str], image_id: int) -> list[dict[str, Any]]:
    """Annotations of the objects whose label is asked for, without ids."""
    annotations = []
    for label, box in zip(scene.labels, boxes_xyxy(scene, *sample.image_hw), strict=True):
        if label not in prompt:
            continue
        x0, y0, x1, y1 = (round(float(value), 2) for value in box)
        bbox = [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)]
        annotations.append(
            {
                "image_id": image_id,
                "category_id": FIRST_CATEGORY_ID + LABELS.index(label),
                "bbox": bbox,
                "area": round(bbox[2] * bbox[3], 2),
                "iscrowd": 0,
            }
        )
    return annotations


def make_samples(out: Path) -> dict[str, Any]:
    """Write every sample picture and annotations.json.

    Args:
        out: folder; made when missing.

    Returns:
        What annotations.json contains.
    """
    out.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, sample in enumerate(SAMPLES, start=1):
        height, width = sample.image_hw
        scene = clear_scene(image_id, width / height)
        noise = 12.0 if sample.noisy else 0.0
        scene = replace(scene, background=replace(scene.background, noise=noise))
        prompt = choose_prompt(sample, scene, image_id)
        save_sample(sample, scene, out / sample.file_name)
        image = {"id": image_id, "file_name": sample.file_name, "width": width, "height": height}
        images.append(image | {"prompt": prompt})
        for annotation in annotate(sample, scene, prompt, image_id):
            annotations.append({"id": len(annotations) + 1} | annotation)
    categories = [{"id": index, "name": label} for index, label in enumerate(LABELS, start=FIRST_CATEGORY_ID)]
    info = {"description": "Sample pictures of the demo world, made by demo/samples.py"}
    dataset = {"info": info, "images": images, "annotations": annotations, "categories": categories}
    (out / "annotations.json").write_text(json.dumps(dataset, indent=1) + "\n", encoding="utf-8")
    return dataset


def _are_apart(scene: Scene) -> bool:
    boxes = np.array([thing.box() for thing in scene.objects])
    for index, box in enumerate(boxes):
        others = boxes[index + 1 :]
        gap_xy = np.maximum(others[:, :2] - box[2:], box[:2] - others[:, 2:])
        if (gap_xy.max(axis=1) < LEAST_GAP).any():
            return False
    return True


def main() -> None:
    """Write the samples and say what they are."""
    parser = argparse.ArgumentParser(description="Make the sample pictures of the demo.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "samples")
    arguments = parser.parse_args()
    dataset = make_samples(arguments.out)
    print(f"{len(dataset['images'])} pictures, {len(dataset['annotations'])} objects in {arguments.out}")


if __name__ == "__main__":
    main()
