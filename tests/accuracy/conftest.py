"""A small data set of demo scenes, and the demo repository that `make repository` builds."""

from pathlib import Path

import pytest
import torch

from coco import write_dataset
from gdino_build.accuracy.dataset import CocoDataset, load_coco
from gdino_build.profile import Profile, load_profile

SCENES = 6
BUILT = Path("out/demo-cpu")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def scenes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six held-out scenes with annotations.json."""
    folder = tmp_path_factory.mktemp("scenes")
    write_dataset("held-out", SCENES, folder)
    return folder


@pytest.fixture
def scenes(scenes_folder: Path) -> CocoDataset:
    return load_coco(scenes_folder / "annotations.json", scenes_folder)


@pytest.fixture(scope="session")
def demo_profile() -> Profile:
    return load_profile("demo-cpu")


@pytest.fixture(scope="module")
def built_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as out/demo-cpu, with its graphs and its repository, for the files that a test writes."""
    if not (BUILT / "repository" / "manifest.json").is_file():
        pytest.fail("the demo repository is not built: run make repository, or make test")
    folder = tmp_path_factory.mktemp("out") / "demo-cpu"
    folder.mkdir()
    for name in ("repository", "onnx"):
        (folder / name).symlink_to((BUILT / name).resolve())
    return folder
