from pathlib import Path

import pytest

from gdino_build.weights.fetch import fetch_weights
from gdino_build.weights.manifest import OfficialFile
from gdino_build.weights.sources import WebSource, choose_sources
from gdino_build.weights.transfer import Patience
from gdino_core.errors import CheckpointError, ConfigError
from tests.weights.conftest import FetchFrom
from tests.weights.misbehaving_server import MisbehavingServer


def test_sources_are_tried_in_the_documented_order(official: OfficialFile) -> None:
    sources = choose_sources(official, mirror="http://mirror", file=Path("mine.pth"))
    assert [source.name for source in sources] == ["github", "huggingface", "mirror", "file"]
    assert [source.name for source in choose_sources(official)] == ["github", "huggingface"]


def test_named_sources_are_the_only_ones_and_in_their_order(official: OfficialFile) -> None:
    sources = choose_sources(official, mirror="http://mirror", names=["mirror", "github", "mirror"])
    assert [source.name for source in sources] == ["mirror", "github"]


def test_fallback_goes_down_the_list_and_stops_at_the_right_file(
    fetch_from: FetchFrom, server: MisbehavingServer
) -> None:
    fetch_from("answers-404", "right", "answers-500")
    assert server.faults() == ["answers-404", "right"]


@pytest.mark.parametrize(
    ("name", "lacks"), [("mirror", "--mirror URL or GDINO_WEIGHTS_MIRROR=URL"), ("file", "--file")]
)
def test_source_that_was_not_given_is_named(name: str, lacks: str, official: OfficialFile) -> None:
    with pytest.raises(ConfigError, match=f"source {name} was named without its .*{lacks}"):
        choose_sources(official, names=[name])


@pytest.mark.parametrize(
    ("mirror", "url"),
    [
        ("https://host/models", "https://host/models/model.pth"),
        ("https://host/models/", "https://host/models/model.pth"),
        ("https://host:8080", "https://host:8080/model.pth"),
        ("https://host/models?token=secret", "https://host/models/model.pth?token=secret"),
    ],
)
def test_file_name_is_joined_to_the_mirror(mirror: str, url: str, official: OfficialFile) -> None:
    assert choose_sources(official, mirror=mirror, names=["mirror"]) == [WebSource(name="mirror", url=url)]


@pytest.mark.parametrize(
    ("mirror", "shown"),
    [
        ("ftp://user:secret@host/models", "ftp://host/models"),
        ("file:///etc", "not a URL"),
        ("user:secret@host/models", "not a URL"),
        ("secret", "not a URL"),
        ("https://", "not a URL"),
        ("https://user:secret@host:port/", "not a URL"),
    ],
)
def test_address_that_is_not_of_the_web_is_refused_without_its_secrets(
    mirror: str, shown: str, official: OfficialFile
) -> None:
    with pytest.raises(ConfigError, match=rf"source mirror is no address of the web: {shown}\n  fix: .*https://") as c:
        choose_sources(official, mirror=mirror)
    assert "secret" not in str(c.value)


@pytest.mark.parametrize("fault", ["right", "answers-404", "dies", "redirect-loop", "answers-nothing", "nobody"])
def test_credentials_are_sent_but_never_printed(
    fault: str,
    server: MisbehavingServer,
    official: OfficialFile,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    host = "127.0.0.1:9" if fault == "nobody" else server.url.removeprefix("http://")
    mirror = f"http://user:secret-1@{host}/{fault}?token=secret-2#secret-3"
    sources = choose_sources(official, mirror=mirror, names=["mirror"])
    printed = ""
    try:
        fetch_weights(official, sources, tmp_path / "weights", Patience(timeout_s=0.2, tries=2, pause_s=0))
    except CheckpointError as error:
        printed = str(error)
    printed += "".join(capsys.readouterr())
    assert f"http://{host}/{fault}/model.pth?…" in printed
    assert "secret" not in printed and "user" not in printed
    if fault != "nobody":
        assert server.log[0].path.endswith("?token=secret-2")
        assert server.log[0].authorization == "Basic dXNlcjpzZWNyZXQtMQ=="


def test_missing_certificates_are_named_and_not_taken_for_a_disk_error(
    official: OfficialFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
    mirror = choose_sources(official, mirror="https://127.0.0.1:9", names=["mirror"])
    with pytest.raises(CheckpointError, match=r"the certificates that REQUESTS_CA_BUNDLE or .* names are not there"):
        fetch_weights(official, mirror, tmp_path, Patience(timeout_s=5))


def test_source_that_nobody_listens_at_is_named_with_the_reason(official: OfficialFile, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"github \(http://127.0.0.1:9/model.pth\): no connection: Connection refused"
    ):
        fetch_weights(official, choose_sources(official), tmp_path, Patience(timeout_s=5))
