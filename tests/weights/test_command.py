"""The command as users run it, in processes of their own: killed, interrupted, twice at once, and through make."""

import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gdino_build.weights.transfer import CHUNK_BYTES
from tests.weights.conftest import CONTENT
from tests.weights.misbehaving_server import MisbehavingServer

ROOT = Path(__file__).parents[2]
SIZE = len(CONTENT)
HALF = SIZE // 2
DEADLINE_S = 60

WriteManifest = Callable[..., Path]


def start(manifest: Path, *more: str, **options: object) -> subprocess.Popen[str]:
    """Start `gdino-build weights tiny` into the folder `weights` beside the manifest."""
    folder = manifest.with_name("weights")
    command = [sys.executable, "-m", "gdino_build.cli", "weights", "tiny", "--manifest", str(manifest)]
    return subprocess.Popen(
        [*command, "--folder", str(folder), *more],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,  # type: ignore[call-overload]
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=DEADLINE_S)
    return process.returncode, out, err


def wait_for_half(process: subprocess.Popen[str], partial: Path) -> None:
    """Wait until the half that `waits` sends is in the partial file, but for the chunk that is not full."""
    while not partial.exists() or partial.stat().st_size < HALF - CHUNK_BYTES:
        assert process.poll() is None
        time.sleep(0.01)


def test_killed_download_resumes_with_the_missing_bytes_alone(
    server: MisbehavingServer, write_manifest: WriteManifest
) -> None:
    manifest = write_manifest(server.at("waits"))
    partial = manifest.with_name("weights") / "model.pth.part"
    process = start(manifest, "--source", "github")
    wait_for_half(process, partial)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = partial.stat().st_size
    server.log.clear()

    code, out, err = finish(start(manifest, "--source", "github"))
    assert (code, out) == (
        0,
        f"{manifest.parent}/weights/model.pth is the official file: {SIZE:,} bytes, sha256 {sha256_in(manifest)}\n",
    ), err
    assert [(request.range, request.sent_bytes) for request in server.log] == [(f"bytes={kept}-", SIZE - kept)]
    assert (manifest.with_name("weights") / "model.pth").read_bytes() == CONTENT


def sha256_in(manifest: Path) -> str:
    match = re.search("[0-9a-f]{64}", manifest.read_text())
    assert match
    return match[0]


def test_interrupt_keeps_the_partial_and_says_how_to_go_on(
    server: MisbehavingServer, write_manifest: WriteManifest
) -> None:
    def listen_to_interrupts() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell that ran these tests in the background ignores them

    manifest = write_manifest(server.at("waits"))
    partial = manifest.with_name("weights") / "model.pth.part"
    process = start(manifest, "--source", "github", preexec_fn=listen_to_interrupts)
    wait_for_half(process, partial)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert err.endswith("gdino-build weights: interrupted; run it again to resume\n")
    assert "Traceback" not in err
    assert partial.stat().st_size > 0
    assert not partial.with_name("model.pth").exists()


def test_second_process_waits_for_the_first_and_downloads_nothing(
    server: MisbehavingServer, write_manifest: WriteManifest
) -> None:
    manifest = write_manifest(server.at("waits"))
    first = start(manifest, "--source", "github")
    assert server.half_sent.wait(DEADLINE_S)
    second = start(manifest, "--source", "github")
    assert second.stderr
    assert second.stderr.readline().startswith("another process is fetching ")
    server.go_on.set()
    for process in (first, second):
        code, out, err = finish(process)
        assert code == 0, err
        assert "model.pth is the official file" in out
    assert len(server.log) == 1
    assert (manifest.with_name("weights") / "model.pth").read_bytes() == CONTENT


def test_write_that_fails_in_the_middle_is_one_error_and_resumes(
    server: MisbehavingServer, write_manifest: WriteManifest
) -> None:
    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, HALF))

    manifest = write_manifest(server.at("right"))
    code, _, err = finish(start(manifest, "--source", "github", preexec_fn=limit_file_size))
    partial = manifest.with_name("weights") / "model.pth.part"
    assert code == 1
    assert f"gdino-build weights: cannot write {partial}: File too large\n  fix: " in err
    assert partial.read_bytes() == CONTENT[:HALF]
    assert finish(start(manifest, "--source", "github"))[0] == 0
    assert server.ranges() == [None, f"bytes={HALF}-"]


def make(*variables: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # -o: the environment that runs this test is ready, whenever pyproject.toml was last written.
    command = ["make", "--no-print-directory", "-o", f"{sys.prefix}/.ready", "weights"]
    return subprocess.run(
        [*command, f"VENV={sys.prefix}", *variables],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "NO_PROXY": "127.0.0.1", **environment},
        text=True,
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )


def test_make_weights_ends_with_the_right_file_behind_misbehaving_sources(
    server: MisbehavingServer, write_manifest: WriteManifest
) -> None:
    manifest = write_manifest(server.at("wrong-bytes"), server.at("web-page"))
    folder = manifest.with_name("my weights")
    done = make(
        "MODEL=tiny", f"MANIFEST={manifest}", f"FOLDER={folder}", GDINO_WEIGHTS_MIRROR=f"{server.url}/truncates"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{folder}/model.pth is the official file: ")
    assert (folder / "model.pth").read_bytes() == CONTENT
    assert server.faults()[:3] == ["wrong-bytes", "web-page", "truncates"]


def test_make_weights_ends_with_one_error_when_every_source_misbehaves(
    server: MisbehavingServer, write_manifest: WriteManifest, tmp_path: Path
) -> None:
    manifest = write_manifest(server.at("answers-404"), server.at("answers-500"))
    (tmp_path / "mine.pth").write_bytes(b"not it")
    done = make(
        "MODEL=tiny",
        f"MANIFEST={manifest}",
        f"FOLDER={tmp_path}/weights",
        f"MIRROR={server.url.replace('http://', 'http://user:secret@')}/oversized-body",
        f"FILE={tmp_path}/mine.pth",
        "SOURCES=file mirror github huggingface",
    )
    assert done.returncode == 2
    assert "secret" not in done.stdout + done.stderr
    assert f"gdino-build weights: no source gave model.pth ({SIZE:,} bytes, sha256 " in done.stderr
    reasons = [line.split()[0] for line in done.stderr.splitlines() if re.match(r"  \w+ \(", line)]
    assert reasons == ["file", "mirror", "github", "huggingface"]
    assert not (tmp_path / "weights" / "model.pth").exists()


def test_make_weights_without_a_model_says_which_there_are() -> None:
    done = make()
    assert done.returncode == 2
    assert "make weights: name a model: MODEL=swint or MODEL=swinb" in done.stderr


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
def test_timeout_that_is_none_is_refused(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gdino_build.cli import main

    monkeypatch.setattr(sys, "argv", ["gdino-build", "weights", "swint", f"--timeout={text}"])
    with pytest.raises(SystemExit):
        main()
    assert "argument --timeout" in capsys.readouterr().err
