"""gdino-build evaluate and accuracy: what they measure when no data set is named, and what they refuse."""

from dataclasses import replace
from pathlib import Path

import pytest

from gdino_build.accuracy.commands import run_accuracy, run_evaluate
from gdino_build.model import SWINT_OGC
from gdino_build.profile import Profile
from gdino_core.errors import ConfigError
from tests.accuracy.datasets import write_odd


def test_only_the_demo_has_pictures_of_its_own(tmp_path: Path, demo_profile: Profile) -> None:
    swint = replace(demo_profile, architecture=SWINT_OGC)
    with pytest.raises(ConfigError, match=r"only the demo has pictures .*\n  fix: .*--coco annotations.json --images"):
        run_evaluate(swint, tmp_path, coco=None, images=None, limit=None)


def test_scenes_that_are_not_there_are_named_with_the_command_that_writes_them(
    tmp_path: Path, demo_profile: Profile
) -> None:
    with pytest.raises(ConfigError, match=r"are not there\n  fix: write them: python demo/coco.py --stream held-out"):
        run_evaluate(demo_profile, tmp_path, coco=None, images=None, limit=None)


def test_pictures_are_looked_for_beside_the_annotations_where_no_folder_is_named(
    tmp_path: Path, demo_profile: Profile
) -> None:
    file = write_odd(tmp_path)
    with pytest.raises(ConfigError, match=r"manifest\.json cannot be read"):  # so the data set was read
        run_evaluate(demo_profile, tmp_path / "out", coco=file, images=None, limit=None)


def test_a_checkpoint_that_the_original_cannot_read_is_refused_at_once(tmp_path: Path, demo_profile: Profile) -> None:
    file = write_odd(tmp_path)
    official = replace(demo_profile, checkpoint=Path("weights/groundingdino_swint_ogc.pth"))
    with pytest.raises(ConfigError, match=r"the original is run on .safetensors.*\n  fix: .*--no-original"):
        run_accuracy([official], tmp_path, coco=file, images=None, limit=None, reference=Path(".venv-reference"))
