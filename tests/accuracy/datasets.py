"""A hand-made COCO data set: odd ids, a crowd, a picture without objects, unicode names."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

ODD: dict[str, Any] = {
    "images": [
        {"id": 901, "file_name": "a/one.png", "height": 80, "width": 100},
        {"id": 7, "file_name": "two.png", "height": 80, "width": 100},
        {"id": 44, "file_name": "nothing.png", "height": 80, "width": 100},
    ],
    "annotations": [
        # An id of 0, one id twice, no area, no iscrowd: all of it is seen in the wild.
        {"id": 0, "image_id": 901, "category_id": 1000, "bbox": [10, 10, 40, 40]},
        {"id": 5, "image_id": 901, "category_id": 17, "bbox": [60, 10, 30, 30], "iscrowd": 0, "area": 900},
        {"id": 5, "image_id": 7, "category_id": 17, "bbox": [0, 0, 50, 50], "iscrowd": 0, "area": 2500},
        {"id": 6, "image_id": 7, "category_id": 1000, "bbox": [50, 0, 50, 80], "iscrowd": 1, "area": 4000},
    ],
    "categories": [{"id": 1000, "name": "Bär"}, {"id": 17, "name": "赤い円"}],
}


def write_odd(folder: Path, **changed: Any) -> Path:
    """Write the data set and its pictures, with some lists replaced; gives the annotation file."""
    for image in ODD["images"]:
        path = folder / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (image["width"], image["height"]), "gray").save(path)
    file = folder / "annotations.json"
    file.write_text(json.dumps({**ODD, **changed}), encoding="utf-8")
    return file
