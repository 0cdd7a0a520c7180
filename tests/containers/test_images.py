"""The images cannot be built here: what their files say is linted, and what they run is run without them."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gdino_build.serve import running_server
from gdino_build.tritonserver import find_runtime, process_environment
from tests.containers.dockerfiles import FOLDER, command, instructions, texts, versions
from tests.end_to_end.conftest import REPOSITORY

BUILD, SERVER = FOLDER / "build.Dockerfile", FOLDER / "server.Dockerfile"
VERSIONS = FOLDER / "versions.env"
PROJECT = tomllib.loads(Path("pyproject.toml").read_text())["project"]
TEXTS = [
    path
    for folder in ("docker", "kubernetes", "monitoring", "build/gdino_build", "gdino_core")
    for path in Path(folder).rglob("*")
    if path.is_file() and path.suffix in (".py", ".md", ".yaml", ".yml", ".env", ".toml", ".Dockerfile", ".template")
]


def run(*words: object, **options: object) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.mark.parametrize("path", [BUILD, SERVER], ids=str)
def test_hadolint_finds_nothing(path: Path) -> None:
    run(Path(sys.executable).with_name("hadolint"), "--failure-threshold", "style", path)


def test_no_other_file_names_a_version_of_an_image() -> None:
    images = {name: value for name, value in versions().items() if name.endswith("_IMAGE")}
    assert images.keys() == {"SERVER_IMAGE", "GPU_BUILD_IMAGE", "CPU_BUILD_IMAGE", "PROMETHEUS_IMAGE", "GRAFANA_IMAGE"}
    for value in images.values():
        assert re.fullmatch(r"[\w./-]+:v?[\d.]+[\w.-]*", value), f"{value} is not pinned"
        named = [path for path in TEXTS if path != VERSIONS and value in path.read_text()]
        assert not named, value
    assert versions()["GDINO_VERSION"] == PROJECT["version"]


def test_plans_are_built_by_the_release_that_serves_them() -> None:
    releases = {versions()[name].rpartition(":")[2] for name in ("SERVER_IMAGE", "GPU_BUILD_IMAGE")}
    assert len(releases) == 1
    known = tomllib.loads(Path("build/gdino_build/doctor/compatibility.toml").read_text())["triton_image"]
    [release] = releases
    assert release.removesuffix("-py3") in {"{}.{:02}".format(*image["release"]) for image in known}


@pytest.mark.parametrize("path", [BUILD, SERVER], ids=str)
def test_nothing_runs_as_root(path: Path) -> None:
    users = [text for name, text in instructions(path) if name in ("USER", "ENTRYPOINT")]
    assert users[-2] == "1000:1000"  # the last before the entrypoint


def test_the_server_installs_the_pins_of_the_project(tmp_path: Path) -> None:
    [install] = texts(SERVER, "RUN")
    assert install.startswith("python3 /tmp/pins.py /tmp/pyproject.toml server > /tmp/requirements.txt")
    pins = run(sys.executable, FOLDER / "pins.py", "pyproject.toml", "server")
    assert pins.split() == PROJECT["optional-dependencies"]["server"]
    (tmp_path / "requirements.txt").write_text(pins)
    run(sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--requirement", tmp_path / "requirements.txt")


@pytest.mark.parametrize("python", ["3.11", "3.12"])  # of the CPU image, and of NVIDIA's
def test_the_pins_of_the_build_can_be_installed_for_the_python_of_each_image(tmp_path: Path, python: str) -> None:
    prepare, install = texts(BUILD, "RUN")[1:]
    assert "pins.py pyproject.toml server build > out/requirements.txt" in prepare
    assert "--ignore-requires-python" not in prepare  # pip would ignore it for every dependency
    assert install == "pip install --no-cache-dir --no-deps --ignore-requires-python --editable ."
    pins = run(sys.executable, FOLDER / "pins.py", "pyproject.toml", "server", "build")
    assert set(PROJECT["optional-dependencies"]["server"]) < set(pins.splitlines())
    (tmp_path / "requirements.txt").write_text(pins)
    for_python = ["--python-version", python, "--only-binary=:all:", "--target", tmp_path / "target"]
    said = run(sys.executable, "-m", "pip", "install", "--dry-run", *for_python, "-r", tmp_path / "requirements.txt")
    assert "Would install" in said


def test_the_package_itself_is_installed_without_its_dependencies(tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path)
    _, *install = texts(BUILD, "RUN")[-1].split()
    run(tmp_path / "bin" / "pip", *install)
    assert (tmp_path / "bin" / "gdino-build").is_file()


def test_what_the_build_image_copies_is_enough_to_build(tmp_path: Path) -> None:
    for text in texts(BUILD, "COPY"):
        *sources, target = [word for word in text.split() if not word.startswith("--")]
        for source in sources:
            if Path(source).is_dir():
                shutil.copytree(source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, tmp_path / target)
    pythonpath = os.pathsep.join(str(tmp_path / one) for one in (".", "build", "clients"))
    (tmp_path / "out").mkdir()
    for folder in ("engine", "onnx"):
        shutil.copytree(REPOSITORY.parent / folder, tmp_path / "out" / "demo-cpu" / folder)
    program = [sys.executable, "-m", "gdino_build.cli", "assemble", "--profile", "demo-cpu"]
    said = run(*program, cwd=tmp_path, env={**os.environ, "PYTHONPATH": pythonpath})
    assert "wrote out/demo-cpu/repository/manifest.json" in said


def test_the_server_knows_every_flag_that_it_is_started_with() -> None:
    runtime = find_runtime()
    done = subprocess.run(
        [str(runtime.server), "--help"], capture_output=True, text=True, env=process_environment(runtime, os.environ)
    )
    known = set(re.findall(r"--[a-z-]+", done.stdout + done.stderr))
    program, *flags = command(SERVER, "CMD")
    assert program == "tritonserver"
    assert {flag.partition("=")[0] for flag in flags} <= known


@pytest.mark.server
def test_the_health_check_tells_a_server_that_answers_from_none(tmp_path: Path) -> None:
    python, *check = command(SERVER, "HEALTHCHECK")
    assert python == "python3"
    with running_server(REPOSITORY, log_file=tmp_path / "server.log") as server:
        here = [server.metrics_url if word.startswith("http") else word for word in check]
        run(sys.executable, *here, "--server", server.pid)
    done = subprocess.run([sys.executable, *here], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "no metrics from" in done.stderr
