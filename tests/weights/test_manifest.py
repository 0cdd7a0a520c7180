import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gdino_build.weights.manifest import find_official, read_manifest
from gdino_core.errors import ConfigError

RIGHT = {
    "name": '"model.pth"',
    "size_bytes": "3",
    "sha256": f'"{"0" * 64}"',
    "github": '"https://host/model.pth"',
    "huggingface": '"https://host/model.pth"',
}


def test_shipped_manifest_has_the_sizes_that_public_sources_agree_on() -> None:
    manifest = read_manifest()
    assert {model: (file.name, file.size_bytes, file.sha256) for model, file in manifest.items()} == {
        "swint": (
            "groundingdino_swint_ogc.pth",
            693_997_677,
            "3b3ca2563c77c69f651d7bd133e97139c186df06231157a64c507099c52bc799",
        ),
        "swinb": (
            "groundingdino_swinb_cogcoor.pth",
            938_057_991,
            "46270f7a822e6906b655b729c90613e48929d0f2bb8b9b76fd10a856f3ac6ab7",
        ),
    }


@pytest.mark.parametrize("model", ["swint", "swinb"])
def test_shipped_addresses_are_https_and_end_in_the_file_name(model: str) -> None:
    official = read_manifest()[model]
    assert re.fullmatch("[0-9a-f]{64}", official.sha256)
    for url, host in ((official.github, "github.com"), (official.huggingface, "huggingface.co")):
        parts = urlsplit(url)
        assert (parts.scheme, parts.hostname, parts.path.split("/")[-1]) == ("https", host, official.name)


@pytest.mark.parametrize("model", ["swint", "swinb"])
def test_profile_looks_for_the_file_where_make_weights_puts_it(model: str) -> None:
    from gdino_build.profile import load_profile

    assert load_profile(f"{model}-cpu").checkpoint == Path("weights") / read_manifest()[model].name


def test_unknown_model_is_answered_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no official weights of 'swinl'\n  fix: choose one of swint, swinb"):
        find_official("swinl", read_manifest())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": '"../model.pth"'}, r"\[tiny\] name is '../model.pth'\n  fix: give a file name without a folder"),
        ({"size_bytes": "0"}, r"\[tiny\] size_bytes is 0"),
        ({"size_bytes": '"3"'}, r"\[tiny\] size_bytes is '3'\n  fix: write a value of type int"),
        ({"sha256": '"abc"'}, r"\[tiny\] sha256 is 'abc'\n  fix: give 64 lower-case hexadecimal digits"),
        ({"md5": '"abc"'}, r"\[tiny\] has the unknown key md5\n  fix: its keys are name, size_bytes, sha256, "),
        ({"github": None}, r"\[tiny\] lacks github"),
    ],
)
def test_wrong_manifest_is_refused_with_its_key(changes: dict[str, str | None], message: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.toml"
    entries = {key: value for key, value in (RIGHT | changes).items() if value is not None}
    path.write_text("[tiny]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items()))
    with pytest.raises(ConfigError, match=message):
        read_manifest(path)


def test_manifest_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"manifest .*none.toml cannot be read: No such file or directory"):
        read_manifest(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("= 1")
    with pytest.raises(ConfigError, match=r"manifest .*bad.toml is not TOML: "):
        read_manifest(tmp_path / "bad.toml")
    (tmp_path / "flat.toml").write_text("swint = 1")
    with pytest.raises(ConfigError, match="the manifest has swint outside a section"):
        read_manifest(tmp_path / "flat.toml")
