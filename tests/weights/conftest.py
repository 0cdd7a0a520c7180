"""A small official file, a server that misbehaves with it, and a manifest that names both."""

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gdino_build.weights.fetch import fetch_weights
from gdino_build.weights.manifest import OfficialFile
from gdino_build.weights.sources import WebSource
from gdino_build.weights.transfer import Patience
from tests.weights.misbehaving_server import MisbehavingServer, listening

CONTENT = random.Random(0).randbytes(3_000_000)
NOBODY = "http://127.0.0.1:9"  # port 9, discard: nobody listens

FetchFrom = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_proxy_and_no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("GDINO_WEIGHTS_MIRROR", raising=False)


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with listening(MisbehavingServer(CONTENT)) as server:
        yield server


@pytest.fixture
def official() -> OfficialFile:
    return OfficialFile(
        model="tiny",
        name="model.pth",
        size_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        github=f"{NOBODY}/model.pth",
        huggingface=f"{NOBODY}/model.pth",
    )


@pytest.fixture
def write_manifest(official: OfficialFile, tmp_path: Path) -> Callable[..., Path]:
    """Write a manifest whose two published addresses are the given ones."""

    def write(github: str = f"{NOBODY}/model.pth", huggingface: str = f"{NOBODY}/model.pth") -> Path:
        path = tmp_path / "manifest.toml"
        path.write_text(
            f'[tiny]\nname = "model.pth"\nsize_bytes = {official.size_bytes}\nsha256 = "{official.sha256}"\n'
            f'github = "{github}"\nhuggingface = "{huggingface}"\n'
        )
        return path

    return write


@pytest.fixture
def fetch_from(server: MisbehavingServer, official: OfficialFile, tmp_path: Path) -> FetchFrom:
    """Fetch into tmp_path/weights from the server, from one source for each fault."""
    names = ("github", "huggingface", "mirror")

    def fetch(*faults: str, timeout_s: float = 5) -> Path:
        sources = [WebSource(name=name, url=server.at(fault)) for name, fault in zip(names, faults, strict=False)]
        return fetch_weights(official, sources, tmp_path / "weights", Patience(timeout_s=timeout_s, tries=4, pause_s=0))

    return fetch


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    """Where the partial file is; its folder is there."""
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights" / "model.pth.part"
