from collections.abc import Iterator
from pathlib import Path

import pytest

from gdino_build.assemble import RepositoryPlan, assemble_repository
from gdino_build.engine import onnx_to_openvino
from gdino_build.openvino_engines import OpenVinoEngines
from gdino_build.serve import RunningServer, running_server
from gdino_build.serving import ServingSettings
from gdino_core.openvino_engine import OpenVinoSettings
from gdino_core.settings import PreprocessSettings
from tests.serve.standin import write_detector, write_text_encoder

SOURCES = Path(__file__).parents[2] / "model_repository"
CACHE_BYTES = 1 << 20


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    write_text_encoder(folder / "onnx" / "text_encoder.onnx")
    write_detector(folder / "onnx" / "detector.onnx")
    for name in ("text_encoder", "detector"):
        onnx_to_openvino(folder / "onnx" / f"{name}.onnx", folder / f"{name}.xml")
    return folder


@pytest.fixture
def plan(engines: Path) -> RepositoryPlan:
    return make_plan(engines)


@pytest.fixture(scope="session")
def repository(engines: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("assembled") / "repository"
    assemble_repository(make_plan(engines), repository)
    return repository


@pytest.fixture(scope="session")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    log_file = tmp_path_factory.mktemp("log") / "tritonserver.log"
    with running_server(repository, log_file=log_file, cache_bytes=CACHE_BYTES) as running:
        yield running


def make_plan(engines: Path) -> RepositoryPlan:
    return RepositoryPlan(
        sources=SOURCES,
        engines=OpenVinoEngines(folder=engines, settings=OpenVinoSettings(threads=1, max_batch_size=8)),
        preprocess=PreprocessSettings(
            short_side=160, long_side=288, resolution_buckets=((160, 160), (160, 576), (576, 160))
        ),
        serving=ServingSettings(),
        profile={"name": "stand-in"},
        weights={"file": "none", "sha256": "0" * 64},
    )
