"""Write scenes of the demo world as a data set in COCO's format.

    python demo/coco.py --scenes 500 --stream held-out --out out/demo-scenes/held-out
    python demo/coco.py --scenes 40 --format jpeg --out out/demo-scenes/jpeg

The folder gets annotations.json and a PNG for each scene, or a JPEG, as cameras make them, for measuring speed; what is
there and whole is left alone. Accuracy is measured on the stream `held-out`, which training never sees; precisions are
calibrated on the stream `training`.
"""

import argparse
import hashlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from batches import EVALUATION_STREAM, TRAINING_STREAM, stream
from scenes import LABELS, Scene, boxes_xyxy, random_scene, render

NATIVE_SHORT_SIDE = 480
FIRST_CATEGORY_ID = 1
ANNOTATIONS = "annotations.json"
_STREAMS = {"held-out": EVALUATION_STREAM, "training": TRAINING_STREAM}
_SUFFIXES = {"png": ".png", "jpeg": ".jpg"}
_SEED = 0


def draw_scene(stream_name: str, index: int) -> Scene:
    """Draw the scene with an index in a stream, "held-out" or "training"; the same arguments give the same one."""
    return random_scene(stream(_STREAMS[stream_name], _SEED, index))


def native_hw(scene: Scene) -> tuple[int, int]:
    """Height and width of a scene's picture with a short side of NATIVE_SHORT_SIDE pixels."""
    width, height = (round(NATIVE_SHORT_SIDE * extent) for extent in scene.extent_xy)
    return height, width


def encode_scene(scene: Scene, picture_format: str = "png") -> bytes:
    """Draw a scene at its native size into a PNG, quickly rather than small, or a JPEG."""
    buffer = io.BytesIO()
    options = {"compress_level": 1} if picture_format == "png" else {"quality": 90}
    Image.fromarray(render(scene, *native_hw(scene))).save(buffer, picture_format, **options)
    return buffer.getvalue()


def scenes_to_coco(scenes: Sequence[Scene], suffix: str = ".png") -> dict[str, Any]:
    """Annotate every object of the scenes, at their native sizes; the image id of a scene is its index."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, scene in enumerate(scenes):
        height, width = native_hw(scene)
        images.append({"id": image_id, "file_name": f"{image_id:06}{suffix}", "width": width, "height": height})
        for label, box in zip(scene.labels, boxes_xyxy(scene, height, width), strict=True):
            annotations.append({"id": len(annotations) + 1, "iscrowd": 0, **_annotation(image_id, label, box)})
    categories = [{"id": index, "name": label} for index, label in enumerate(LABELS, start=FIRST_CATEGORY_ID)]
    info = {"description": "Scenes of the demo world, made by demo/coco.py"}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}


def write_dataset(stream_name: str, count: int, out: Path, picture_format: str = "png") -> Path:
    """Write the first scenes of a stream, unless they are there.

    annotations.json tells the SHA-256 of each picture. It is written last, so that a broken-off run is done again.

    Args:
        stream_name: "held-out" or "training".
        count: number of scenes.
        out: folder; made when missing.
        picture_format: "png" or "jpeg".

    Returns:
        Path of annotations.json.
    """
    scenes = [draw_scene(stream_name, index) for index in range(count)]
    dataset = scenes_to_coco(scenes, _SUFFIXES[picture_format])
    path = out / ANNOTATIONS
    if _is_whole(path, dataset):
        return path
    out.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    pairs = zip(scenes, dataset["images"], strict=True)
    for scene, image in tqdm(pairs, total=count, desc=f"{stream_name} scenes", unit="picture", disable=None):
        encoded = encode_scene(scene, picture_format)
        image["sha256"] = hashlib.sha256(encoded).hexdigest()
        _write(out / image["file_name"], encoded)
    _write(path, (json.dumps(dataset, indent=1) + "\n").encode("utf-8"))
    return path


def _annotation(image_id: int, label: str, box_xyxy: NDArray[np.float32]) -> dict[str, Any]:
    x0, y0, x1, y1 = (float(value) for value in box_xyxy)
    width, height = x1 - x0, y1 - y0
    return {
        "image_id": image_id,
        "category_id": FIRST_CATEGORY_ID + LABELS.index(label),
        "bbox": [x0, y0, width, height],
        "area": width * height,
    }


def _is_whole(path: Path, dataset: dict[str, Any]) -> bool:
    """Whether a data set is there, with these annotations and every picture as it was written."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        hashes = [image.pop("sha256") for image in found["images"]]
        pictures = [(path.parent / image["file_name"]).read_bytes() for image in found["images"]]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(found == dataset) and hashes == [hashlib.sha256(picture).hexdigest() for picture in pictures]


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".partial")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def main() -> None:
    """Write a data set and say where it is."""
    parser = argparse.ArgumentParser(description="Write scenes of the demo world as a data set in COCO's format.")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--stream", choices=tuple(_STREAMS), default="held-out")
    parser.add_argument("--format", choices=tuple(_SUFFIXES), default="png", help="of the pictures")
    parser.add_argument("--out", type=Path, help="folder (default: out/demo-scenes/STREAM)")
    arguments = parser.parse_args()
    out = arguments.out or Path("out/demo-scenes") / arguments.stream
    path = write_dataset(arguments.stream, arguments.scenes, out, arguments.format)
    print(f"{path}: {arguments.scenes} {arguments.stream} scenes")


if __name__ == "__main__":
    main()
