"""COCO files: what users have is read, what would give a wrong figure is refused with how to mend it."""

import json
from pathlib import Path
from typing import Any

import pytest

from gdino_build.accuracy.dataset import load_coco
from gdino_build.accuracy.through_server import check_labels
from gdino_core.errors import ConfigError, ImageError, PromptError
from tests.accuracy.datasets import ODD, write_odd


def changed(part: str, place: int, **fields: Any) -> dict[str, Any]:
    entries = [dict(entry) for entry in ODD[part]]
    entries[place] |= fields
    return {part: entries}


def test_labels_and_ids_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    dataset = load_coco(write_odd(tmp_path), tmp_path)
    assert dataset.labels == ("Bär", "赤い円")
    assert dataset.category_ids == (1000, 17)
    assert [picture.image_id for picture in dataset.pictures] == [901, 7, 44]
    assert dataset.pictures[0].path == tmp_path / "a" / "one.png"
    assert dataset.pictures[0].image_hw == (80, 100)


def test_annotations_get_ids_that_pycocotools_can_tell_apart(tmp_path: Path) -> None:
    truth = load_coco(write_odd(tmp_path), tmp_path).truth
    assert [one["id"] for one in truth["annotations"]] == [1, 2, 3, 4]
    assert [one["area"] for one in truth["annotations"]] == [1600, 900, 2500, 4000]
    assert [one["iscrowd"] for one in truth["annotations"]] == [0, 0, 0, 1]


def test_a_limit_takes_the_first_pictures_and_their_truth_alone(tmp_path: Path) -> None:
    dataset = load_coco(write_odd(tmp_path), tmp_path, limit=1)
    assert [picture.image_id for picture in dataset.pictures] == [901]
    assert {one["image_id"] for one in dataset.truth["annotations"]} == {901}
    assert len(dataset.truth["images"]) == 1


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_that_leaves_no_picture_is_refused(tmp_path: Path, limit: int) -> None:
    with pytest.raises(ConfigError, match=f"the limit is {limit} pictures"):
        load_coco(write_odd(tmp_path), tmp_path, limit=limit)


def test_a_missing_picture_is_named_before_anything_is_asked(tmp_path: Path) -> None:
    file = write_odd(tmp_path)
    (tmp_path / "a" / "one.png").unlink()
    with pytest.raises(ImageError, match=r"1 of the 3 pictures .* the first is a/one.png\n  fix: name the folder"):
        load_coco(file, tmp_path)


@pytest.mark.parametrize(
    "content", ["", "no JSON", "[]", "{}", '{"images": {}}', '{"images": [], "annotations": [], "categories": [1]}']
)
def test_a_file_that_is_not_coco_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "annotations.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"is not JSON|not in COCO's format|is empty"):
        load_coco(file, tmp_path)


def test_a_missing_annotation_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the annotation file .*none.json: No such file"):
        load_coco(tmp_path / "none.json", tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed("images", 1, id="7"), r"images\[1\] .* id '7'"),
        (changed("images", 1, id=True), r"images\[1\] .* id True"),
        (changed("images", 1, id=901), "2 images .* the id 901"),
        (changed("images", 0, width=0), r"images\[0\] .* width 0"),
        (changed("categories", 0, name=" "), r"categories\[0\] .* name ' '"),
        (changed("categories", 0, id=17), "2 categories .* the id 17"),
        (changed("annotations", 2, bbox=[1, 2, 3]), r"annotations\[2\] .* bbox \[1, 2, 3\]"),
        (changed("annotations", 2, bbox=[1, 2, 3, float("nan")]), r"annotations\[2\] .* bbox"),
        (changed("annotations", 2, bbox=[float("inf"), 2, 3, 4]), r"annotations\[2\] .* bbox"),
        (changed("annotations", 2, bbox=[1, 2, -3, 4]), r"annotations\[2\] .* bbox"),
        (changed("annotations", 2, image_id=8), r"annotations\[2\] .* image_id 8, which none of the images has"),
        (changed("annotations", 2, category_id=1), r"annotations\[2\] .* category_id 1, which none of the categories"),
        ({"annotations": []}, "the list of annotations .* is empty"),
    ],
)
def test_an_entry_that_would_spoil_the_figure_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_coco(write_odd(tmp_path, **change), tmp_path)


@pytest.mark.parametrize("name", ["Bär", "bär", " BÄR  "])
def test_two_categories_of_one_name_are_refused_since_the_model_is_asked_by_name(tmp_path: Path, name: str) -> None:
    file = write_odd(tmp_path, **changed("categories", 1, name=name))
    with pytest.raises(ConfigError, match=r"categories 1000 and 17 .* both named 'bär'.*\n  fix: merge them"):
        load_coco(file, tmp_path)


def test_pictures_without_a_single_object_are_refused(tmp_path: Path) -> None:
    annotations = [one for one in ODD["annotations"] if one.get("iscrowd")]
    with pytest.raises(ConfigError, match="annotates nothing in its first 3 pictures"):
        load_coco(write_odd(tmp_path, annotations=annotations), tmp_path)


def test_categories_beyond_the_token_limit_are_refused_with_how_many_fit(tmp_path: Path) -> None:
    many = [{"id": 2000 + number, "name": f"thing {number}"} for number in range(90)]
    dataset = load_coco(write_odd(tmp_path, categories=ODD["categories"] + many), tmp_path)
    with pytest.raises(PromptError, match=r"92 categories .* PROMPT has \d+ tokens .* the first \d+ of 92 labels fit"):
        check_labels(dataset, (16, 256))


def test_the_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    file = write_odd(tmp_path)
    first = load_coco(file, tmp_path).sha256
    file.write_text(json.dumps(ODD, indent=1), encoding="utf-8")
    assert load_coco(file, tmp_path).sha256 != first
