"""The programs that a container runs beside the server say what is wrong, and fail when it is."""

import shutil
from pathlib import Path

import pytest

from gdino_core import draining, liveness, manifest
from gdino_core.errors import ConfigError, ServerError

REPOSITORY = Path("out/demo-cpu/repository")
NOBODY = "http://127.0.0.1:9/metrics"  # the port "discard", which nothing listens on


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    copy = tmp_path / "models"
    shutil.copytree(REPOSITORY, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def test_a_whole_repository_is_served(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert manifest.main([str(repository)]) == 0
    files = [path for path in repository.rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert capsys.readouterr().out.startswith(f"{len(files)} files")


def test_a_copy_that_was_broken_off_is_not_served(repository: Path) -> None:
    engine = repository / "detector" / "1" / "model.bin"
    content = engine.read_bytes()
    engine.write_bytes(content[:-1])
    with pytest.raises(ConfigError, match=rf"model\.bin has {len(content) - 1:,} of {len(content):,} bytes"):
        manifest.check_repository(repository)
    engine.unlink()
    with pytest.raises(ConfigError, match=r"model\.bin is missing"):
        manifest.check_repository(repository)
    (repository / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="no model repository"):
        manifest.check_repository(repository)


def test_an_engine_of_another_build_is_not_served(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = repository / "detector" / "1" / "model.bin"
    content = bytearray(engine.read_bytes())
    content[0] ^= 1
    engine.write_bytes(content)
    assert manifest.main([str(repository)]) == 1
    assert "model.bin has sha256" in capsys.readouterr().err


def processes(folder: Path, *stats: str) -> Path:
    for number, stat in enumerate(stats, start=10):
        (folder / str(number)).mkdir()
        (folder / str(number) / "stat").write_text(f"{number} {stat} 1 1 0")
    return folder


def test_a_model_that_has_died_is_seen_and_nothing_else_is_taken_for_one(tmp_path: Path) -> None:
    stub = "(triton_python_b)"
    others = processes(tmp_path, f"{stub} S 1", "(tritonserver) S 0", "(a (triton) b) Z 1", "(sleep) Z 1")
    liveness.check_models(others)
    (tmp_path / "10" / "stat").write_text(f"10 {stub} Z 1 1 1 0")
    with pytest.raises(ServerError, match="process 10 of a model has ended"):
        liveness.check_models(others)
    with pytest.raises(ServerError, match="process 10"):
        liveness.check_models(others, server=1)
    liveness.check_models(others, server=2)  # another server's


def test_a_server_that_does_not_answer_is_not_alive(capsys: pytest.CaptureFixture[str]) -> None:
    assert liveness.main(["--metrics-url", NOBODY]) == 1
    assert f"no metrics from {NOBODY}" in capsys.readouterr().err


def test_a_server_without_a_file_to_drain_by_is_not_taken_for_drained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(draining.DRAIN_FILE_VARIABLE, raising=False)
    assert draining.main(["--metrics-url", NOBODY]) == 1
    assert "GDINO_DRAIN_FILE is not set" in capsys.readouterr().err


def test_a_server_that_has_ended_has_nothing_left_to_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(draining.DRAIN_FILE_VARIABLE, str(tmp_path / "drain"))
    assert draining.main(["--metrics-url", NOBODY]) == 0
    assert (tmp_path / "drain").exists()
