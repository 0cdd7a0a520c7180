"""One real server with the demo repository for all tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gdino_build.assemble import RepositoryPlan, assemble_repository
from gdino_build.openvino_engines import OpenVinoEngines
from gdino_build.profile import load_profile
from gdino_build.serve import RunningServer, running_server
from gdino_build.serving import ServingSettings
from gdino_client import Client
from gdino_core.openvino_engine import OpenVinoSettings

REPOSITORY = Path("out/demo-cpu/repository")


def assemble_demo(repository: Path, *, max_batch_size: int = 8, **serving: int) -> Path:
    """Assemble the demo's engines for a server with other queues."""
    profile = load_profile("demo-cpu")
    plan = RepositoryPlan(
        sources=Path("model_repository"),
        engines=OpenVinoEngines(
            folder=REPOSITORY.parent / "engine", settings=OpenVinoSettings(streams=1, max_batch_size=max_batch_size)
        ),
        preprocess=profile.preprocess,
        serving=ServingSettings(**serving),
        profile={},
        weights={},
    )
    return assemble_repository(plan, repository).parent


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    if not REPOSITORY.is_dir():
        pytest.fail("the demo repository is not built: run make repository, or make test")
    with running_server(REPOSITORY, log_file=tmp_path_factory.mktemp("server") / "server.log") as running:
        yield running


@pytest.fixture(scope="session")
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.grpc_url) as connected:
        yield connected
