"""The client works where only its own dependencies are installed.

A folder gets links to the two packages and to exactly the distributions that pyproject.toml's `dependencies`
need, read from their metadata; a Python that sees the standard library and this folder, and nothing else,
asks a server with it. Nothing is downloaded.
"""

import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.client.canned_server import CannedServer, answer
from tests.client.conftest import MakePicture

ROOT = Path(__file__).resolve().parents[2]


def needed_distributions(requirements: list[str]) -> set[str]:
    """Names of all distributions that some requirements need, theirs included."""
    found: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra_of_asker = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra_of_asker}):
            continue
        for extra in ("", *requirement.extras):
            key = (canonicalize_name(requirement.name), extra)
            if key not in found:
                found.add(key)
                waiting += [(Requirement(text), extra) for text in distribution(requirement.name).requires or ()]
    return {name for name, _ in found}


@pytest.fixture
def installed_alone(tmp_path: Path) -> Path:
    target = tmp_path / "site"
    target.mkdir()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name in sorted(needed_distributions(project["dependencies"])):
        for file in distribution(name).files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (target / top).exists():
                (target / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    (target / "gdino_core").symlink_to(ROOT / "gdino_core")
    (target / "gdino_client").symlink_to(ROOT / "clients" / "gdino_client")
    return target


def run_alone(target: Path, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    # -I: no environment variables, no user's packages, not the working folder; -S: no site-packages.
    code = f"import sys; sys.path.append({str(target)!r})\n{program}"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *arguments], capture_output=True, text=True, timeout=60
    )


def test_the_test_itself_hides_what_is_not_a_dependency(installed_alone: Path) -> None:
    for name in ("tokenizers", "onnx", "torch", "openvino"):
        result = run_alone(installed_alone, f"import {name}")
        assert f"No module named '{name}'" in result.stderr


def test_the_command_answers_with_its_own_dependencies_alone(
    installed_alone: Path, server: CannedServer, make_picture: MakePicture, tmp_path: Path
) -> None:
    server.outputs = answer(["cat"], [0.5], [(1, 2, 30, 15)], [-1])
    picture, annotated = tmp_path / "picture.jpg", tmp_path / "annotated.png"
    picture.write_bytes(make_picture("JPEG"))
    result = run_alone(
        installed_alone,
        "from gdino_client.cli import main; sys.exit(main())",
        *("detect", str(picture), "--prompt", "cat .", "--url", server.url, "--save", str(annotated)),
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[0] == f"{picture}  40x20  1 detection"
    assert annotated.exists()
