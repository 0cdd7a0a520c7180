"""What is in the folder before and after: the file, a wrong one, a copy, a full disk."""

import io
import os
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from gdino_build.weights.fetch import fetch_weights
from gdino_build.weights.manifest import OfficialFile
from gdino_build.weights.sources import LocalSource
from gdino_build.weights.transfer import Patience
from gdino_core.errors import CheckpointError
from tests.weights.conftest import CONTENT, FetchFrom
from tests.weights.misbehaving_server import MisbehavingServer

SIZE = len(CONTENT)
HALF = SIZE // 2


def test_right_file_is_verified_and_nothing_downloaded(
    fetch_from: FetchFrom, server: MisbehavingServer, tmp_path: Path
) -> None:
    fetch_from("right")
    server.log.clear()
    assert fetch_from("right").read_bytes() == CONTENT
    assert server.log == []


@pytest.mark.parametrize("wrong", [b"", b"other", bytes(SIZE)], ids=["empty", "short", "same-size"])
def test_wrong_file_is_set_aside_never_lost_and_never_left(
    wrong: bytes, fetch_from: FetchFrom, partial: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = partial.with_name("model.pth")
    path.write_bytes(wrong)
    partial.with_name("model.pth.rejected").write_bytes(b"an earlier one")
    with pytest.raises(CheckpointError, match="HTTP 404"):
        fetch_from("answers-404")
    assert not path.exists()
    assert partial.with_name("model.pth.rejected").read_bytes() == b"an earlier one"
    assert partial.with_name("model.pth.rejected-2").read_bytes() == wrong
    assert f"{path} is not the official file: expected " in capsys.readouterr().err


def test_dangling_link_is_set_aside(fetch_from: FetchFrom, partial: Path) -> None:
    path = partial.with_name("model.pth")
    path.symlink_to("nowhere")
    assert fetch_from("right").read_bytes() == CONTENT
    assert not path.is_symlink()


def copy(file: Path, official: OfficialFile, folder: Path) -> Path:
    return fetch_weights(official, [LocalSource(path=file)], folder, Patience(timeout_s=5))


def test_local_file_is_copied_and_kept(official: OfficialFile, tmp_path: Path) -> None:
    file = tmp_path / "mine.pth"
    file.write_bytes(CONTENT)
    assert copy(file, official, tmp_path / "weights").read_bytes() == CONTENT
    assert file.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "is not the official file: it does not exist"),
        (b"<html>", f"is not the official file: expected {SIZE:,} bytes, found 6"),
        (bytes(SIZE), "is not the official file: expected sha256 .*, found "),
    ],
    ids=["missing", "web-page", "wrong-bytes"],
)
def test_wrong_local_file_is_named_and_takes_no_downloaded_bytes(
    content: bytes | None, reason: str, official: OfficialFile, partial: Path, tmp_path: Path
) -> None:
    partial.write_bytes(CONTENT[:HALF])
    file = tmp_path / "mine.pth"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"  file \({file}\): {reason}"):
        copy(file, official, partial.parent)
    assert partial.read_bytes() == CONTENT[:HALF]


def test_partial_file_given_as_the_local_file_is_not_emptied(official: OfficialFile, partial: Path) -> None:
    partial.write_bytes(CONTENT)
    assert copy(partial, official, partial.parent).read_bytes() == CONTENT


def test_full_disk_is_told_before_anything_is_asked_for(
    fetch_from: FetchFrom, server: MisbehavingServer, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial.write_bytes(CONTENT[:HALF])
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CheckpointError) as caught:
        fetch_from("right")
    assert str(caught.value) == (
        f"the disk of {partial.parent} is full: {HALF:,} bytes more are needed, 1,000 are free\n"
        f"  fix: free some and run make weights MODEL=tiny again, which resumes after {HALF:,} bytes; "
        "or add FOLDER=path"
    )
    assert server.log == []


def test_disk_that_fills_while_downloading_is_told_and_no_other_source_tried(
    fetch_from: FetchFrom, server: MisbehavingServer, partial: Path
) -> None:
    partial.symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match=rf"the disk of .* is full: {SIZE:,} bytes more are needed, .* are free"):
        fetch_from("right", "right")
    assert len(server.log) == 1
    assert not partial.with_name("model.pth").exists()


def test_folder_that_cannot_be_written_is_named(official: OfficialFile, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("a file")
    with pytest.raises(CheckpointError, match=r"cannot write .*weights: File exists\n  fix: .*FOLDER=path"):
        copy(tmp_path / "mine.pth", official, tmp_path / "weights")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_shows_progress_with_rate_and_time_left(
    fetch_from: FetchFrom, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial.write_bytes(CONTENT[:HALF])
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fetch_from("right")
    first, *_, last = [line for line in terminal.getvalue().split("\r") if "model.pth:" in line]
    assert "50%" in first and "1.50M/3.00M [00:00<?, ?B/s]" in first
    assert "100%" in last and "<00:00" in last and "B/s]" in last


def test_no_terminal_gets_a_line_and_no_bar(
    fetch_from: FetchFrom, server: MisbehavingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch_from("right")
    assert capsys.readouterr().err == f"github: {server.at('right')} (0 of {SIZE:,} bytes are here){os.linesep}"
