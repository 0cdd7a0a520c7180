"""Every fault of a server, by name: it ends with the right file, or with the right error and no file."""

import re
from pathlib import Path

import pytest

from gdino_build.weights.transfer import CHUNK_BYTES
from gdino_core.errors import CheckpointError
from tests.weights.conftest import CONTENT, FetchFrom
from tests.weights.misbehaving_server import MisbehavingServer, Request

SIZE = len(CONTENT)
HALF = SIZE // 2


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


GOT_OVER = (
    "truncates",
    "truncates-silently",
    "stalls",
    "ignores-range",
    "wrong-content-range",
    "answers-416",
    "redirects",
)


@pytest.mark.parametrize("fault", ["right", *GOT_OVER])
@pytest.mark.parametrize("begun", [False, True], ids=["from-nothing", "from-a-partial"])
def test_fault_is_got_over(fault: str, begun: bool, fetch_from: FetchFrom, partial: Path) -> None:
    if begun:
        partial.write_bytes(CONTENT[:HALF])
    path = fetch_from(fault, timeout_s=0.5)
    assert path.read_bytes() == CONTENT
    assert files_in(path.parent) == ["model.pth"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("always-truncates", f"ended after 0 of {SIZE:,} bytes, after 4 tries"),
        ("always-stalls", "no byte came for 0.2 s, after 4 tries"),
        ("answers-nothing", "no answer in 0.2 s"),
        ("redirect-loop", "redirects more than 10 times"),
        ("redirects-to-a-file", "redirects to what is no address of the web"),
        ("answers-404", "HTTP 404 Not Found"),
        ("answers-500", "HTTP 500 Internal Server Error"),
        ("always-416", "HTTP 416 Requested Range Not Satisfiable"),
        ("wrong-bytes", r"has another file: expected sha256 [0-9a-f]{64}, found [0-9a-f]{64}"),
        ("oversized-body", f"sent more than the expected {SIZE:,} bytes"),
        ("wrong-announced-size", f"has another file: expected {SIZE:,} bytes, it announces {SIZE + 7:,}"),
        ("web-page", r"sent a web page, not the file \(Content-Type text/html; charset=utf-8\)"),
        ("unnamed-web-page", "sent a web page, not the file"),
        ("compresses", r"sends the file compressed \(gzip\), though asked not to"),
        ("is-not-http", r"no usable answer \(ConnectionError\)"),
    ],
)
def test_fault_is_named_and_leaves_no_file(
    fault: str, reason: str, fetch_from: FetchFrom, server: MisbehavingServer, tmp_path: Path
) -> None:
    source = re.escape(f"  github ({server.at(fault)}): ")
    with pytest.raises(CheckpointError, match=rf"no source gave model\.pth[^\n]+\n{source}{reason}"):
        fetch_from(fault, timeout_s=0.2)
    assert not (tmp_path / "weights" / "model.pth").exists()
    kept = [name for name in files_in(tmp_path / "weights") if (tmp_path / "weights" / name).stat().st_size]
    assert kept == []


@pytest.mark.parametrize(
    "fault", ["answers-404", "answers-500", "wrong-bytes", "oversized-body", "web-page", "redirect-loop"]
)
def test_next_source_is_tried_after_a_message(
    fault: str, fetch_from: FetchFrom, server: MisbehavingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch_from(fault, "right").read_bytes() == CONTENT
    assert server.log[-1].range is None, "what a wrong source sent must not be resumed"
    first, *_, last = [line for line in capsys.readouterr().err.splitlines() if line]
    assert first.startswith(f"github: {server.at(fault)}")
    assert last.startswith(f"huggingface: {server.at('right')}")


def test_what_one_source_left_the_next_one_resumes(fetch_from: FetchFrom, server: MisbehavingServer) -> None:
    assert fetch_from("dies", "right").read_bytes() == CONTENT
    kept = HALF // CHUNK_BYTES * CHUNK_BYTES
    assert server.log[-1] == Request("right", "/right/model.pth", f"bytes={kept}-", SIZE - kept)


def test_wrong_announced_size_is_refused_before_the_partial_is_touched(fetch_from: FetchFrom, partial: Path) -> None:
    partial.write_bytes(CONTENT[:HALF])
    for fault in ("wrong-announced-size", "wrong-announced-range", "web-page", "answers-404"):
        with pytest.raises(CheckpointError, match=f"{HALF:,} bytes are kept: running again resumes"):
            fetch_from(fault)
    assert partial.read_bytes() == CONTENT[:HALF]


def test_refused_range_starts_over_once(
    fetch_from: FetchFrom, server: MisbehavingServer, partial: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    partial.write_bytes(CONTENT[:HALF])
    fetch_from("answers-416")
    assert server.ranges() == [f"bytes={HALF}-", None]
    assert f"github: HTTP 416, it has nothing after byte {HALF:,}; starting over" in capsys.readouterr().err


def test_corrupt_partial_is_fetched_again_before_the_source_is_blamed(
    fetch_from: FetchFrom, server: MisbehavingServer, partial: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    partial.write_bytes(bytes(HALF))
    assert fetch_from("right").read_bytes() == CONTENT
    assert server.ranges() == [f"bytes={HALF}-", None]
    assert "the resumed file is damaged: expected sha256" in capsys.readouterr().err


def test_corrupt_partial_does_not_excuse_a_wrong_source_twice(
    fetch_from: FetchFrom, server: MisbehavingServer, partial: Path
) -> None:
    partial.write_bytes(bytes(HALF))
    with pytest.raises(CheckpointError, match="has another file: expected sha256"):
        fetch_from("wrong-bytes")
    assert server.ranges() == [f"bytes={HALF}-", None]
    assert not partial.exists()


def test_partial_that_is_too_long_is_discarded(
    fetch_from: FetchFrom, server: MisbehavingServer, partial: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    partial.write_bytes(CONTENT + b"more")
    assert fetch_from("right").read_bytes() == CONTENT
    assert f"is too long: expected {SIZE:,} bytes, found {SIZE + 4:,}; starting over" in capsys.readouterr().err


def test_whole_partial_needs_no_source(fetch_from: FetchFrom, server: MisbehavingServer, partial: Path) -> None:
    partial.write_bytes(CONTENT)
    assert fetch_from("answers-404").read_bytes() == CONTENT
    assert server.log == []


def test_all_sources_failing_is_one_error_with_each_reason(fetch_from: FetchFrom, server: MisbehavingServer) -> None:
    with pytest.raises(CheckpointError) as caught:
        fetch_from("answers-404", "web-page", "wrong-bytes")
    lines = str(caught.value).splitlines()
    assert re.fullmatch(rf"no source gave model\.pth \({SIZE:,} bytes, sha256 [0-9a-f]{{64}}\):", lines[0])
    assert lines[1] == f"  github ({server.at('answers-404')}): HTTP 404 Not Found"
    assert lines[2].startswith(f"  huggingface ({server.at('web-page')}): sent a web page")
    assert lines[3].startswith(f"  mirror ({server.at('wrong-bytes')}): has another file: expected sha256")
    assert lines[4] == (
        "  fix: download it elsewhere and run make weights MODEL=tiny FILE=path/model.pth, "
        "or name a mirror: make weights MODEL=tiny MIRROR=https://host/folder"
    )
