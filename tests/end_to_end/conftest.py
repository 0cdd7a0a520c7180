"""One real server with the demo repository for all tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gdino_build.serve import RunningServer, running_server
from gdino_client import Client

REPOSITORY = Path("out/demo-cpu/repository")


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
