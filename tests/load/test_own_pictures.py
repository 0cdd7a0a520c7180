"""A folder of one's own pictures becomes a data set that the tools and the original read."""

import shutil
from pathlib import Path

import pytest

from gdino_build.accuracy.dataset import load_coco
from gdino_build.load.own_pictures import write_dataset
from gdino_core.errors import ImageError

SAMPLES = Path("demo/samples")


def test_pictures_of_a_folder_are_taken_by_name_and_other_files_left_out(tmp_path: Path) -> None:
    for name in ("2-wide.png", "1-landscape.jpg", "annotations.json"):
        shutil.copy(SAMPLES / name, tmp_path)
    found = write_dataset(tmp_path, ["cat", "remote control"], tmp_path / "out" / "own.json", limit=5)
    assert [picture.path.name for picture in found.pictures] == ["1-landscape.jpg", "2-wide.png"]
    assert found.labels == ("cat", "remote control")
    again = load_coco(tmp_path / "out" / "own.json", tmp_path)
    assert [picture.image_hw for picture in again.pictures] == [picture.image_hw for picture in found.pictures]
    first_only = write_dataset(tmp_path, ["cat"], tmp_path / "out" / "own.json", limit=1)
    assert len(first_only.pictures) == 1


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no picture")
    with pytest.raises(ImageError, match=r"there is no picture in .*\n  fix: name a folder of JPEG"):
        write_dataset(tmp_path, ["cat"], tmp_path / "own.json", limit=5)
