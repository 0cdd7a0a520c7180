"""Make a data set of a folder of pictures, as the original and this package's tools read one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from gdino_build.accuracy.dataset import CocoDataset, load_coco
from gdino_build.whole_file import write_json
from gdino_core.errors import ImageError


def write_dataset(folder: Path, labels: Sequence[str], file: Path, limit: int) -> CocoDataset:
    """Write a data set of the first pictures of a folder, by name.

    Args:
        folder: of pictures; other files in it are left out.
        labels: to ask for.
        file: becomes the annotation file, in COCO's format.
        limit: take so many pictures at most.

    Raises:
        ImageError: there is no picture.
        ConfigError: two labels are the same to the model.
    """
    images: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*")):
        try:
            with Image.open(path) as picture:
                images.append(
                    {"id": len(images), "file_name": path.name, "width": picture.width, "height": picture.height}
                )
        except (OSError, UnidentifiedImageError):
            continue
        if len(images) == limit:
            break
    if not images:
        raise ImageError(f"there is no picture in {folder}", fix="name a folder of JPEG, PNG or WebP files")
    # A data set must have a box; nothing is scored here.
    box = {"image_id": 0, "category_id": 0, "bbox": [0, 0, images[0]["width"], images[0]["height"]]}
    categories = [{"id": number, "name": label} for number, label in enumerate(labels)]
    write_json(file, {"images": images, "annotations": [box], "categories": categories})
    return load_coco(file, folder)
