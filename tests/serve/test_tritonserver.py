import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gdino_build import launch_with_parent
from gdino_build.tritonserver import TritonRuntime, find_runtime, process_environment
from gdino_core.errors import ServerError

PYTHON = sysconfig.get_python_version()


def _environment(folder: Path, numpy_version: str = "1.26.4", stubs: tuple[str, ...] = (PYTHON,)) -> Path:
    root = folder / "tritonserver" / "pytriton" / "tritonserver"
    for stub in stubs:
        (root / "python_backend_stubs" / stub).mkdir(parents=True)
        (root / "python_backend_stubs" / stub / "triton_python_backend_stub").write_text(f"stub of {stub}")
    for path in ("bin", "backends/python"):
        (root / path).mkdir(parents=True)
    (root / "bin" / "tritonserver").touch()
    record = folder / "lib" / f"python{PYTHON}" / "site-packages" / f"numpy-{numpy_version}.dist-info" / "METADATA"
    record.parent.mkdir(parents=True)
    record.write_text(f"Metadata-Version: 2.1\nName: numpy\nVersion: {numpy_version}\n")
    return folder


def test_stub_for_this_python_is_put_beside_the_backend_once(tmp_path: Path) -> None:
    environment = _environment(tmp_path)
    stub = find_runtime(environment).backends / "python" / "triton_python_backend_stub"
    assert stub.read_text() == f"stub of {PYTHON}"
    before = stub.stat()
    find_runtime(environment)
    assert stub.stat() == before
    assert [path.name for path in stub.parent.iterdir()] == [stub.name]


def test_missing_server_is_told_with_the_command_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"there is no tritonserver in .*\n  fix: run make setup, or pip install"):
        find_runtime(tmp_path)


def test_numpy_2_is_refused_because_arrays_would_arrive_as_garbage(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"needs numpy 1\.x, .* has 2\.4\.6\n  fix: pip install numpy==1\.26\.4"):
        find_runtime(_environment(tmp_path, numpy_version="2.4.6"))


def test_python_without_a_stub_is_told_which_ones_have_one(tmp_path: Path) -> None:
    with pytest.raises(
        ServerError, match=r"no Python backend for .*\n  fix: make the environment with one of 3\.1, 3\.2"
    ):
        find_runtime(_environment(tmp_path, stubs=("3.1", "3.2")))


def test_environments_own_python_comes_first_on_the_path() -> None:
    runtime = TritonRuntime(
        server=Path("/s"), backends=Path("/b"), caches=Path("/c"), libpython=Path("/lib3"), environment=Path("/venv")
    )
    variables = process_environment(runtime, {"PATH": "/usr/bin", "LD_LIBRARY_PATH": "/other", "HOME": "/h"})
    paths = {"PATH": "/venv/bin:/usr/bin", "LD_LIBRARY_PATH": "/lib3:/other"}
    assert variables == paths | {"HOME": "/h", "OPENBLAS_NUM_THREADS": "1"}
    assert process_environment(runtime, {"OPENBLAS_NUM_THREADS": "4"})["OPENBLAS_NUM_THREADS"] == "4"


def test_launched_program_ends_when_its_parent_is_killed() -> None:
    launcher = launch_with_parent.__file__
    program = (
        "import os, subprocess, sys; "
        f"child = subprocess.Popen([sys.executable, {launcher!r}, str(os.getpid()), '/bin/sleep', '60']); "
        "print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        _wait_for(lambda: "sleep" in _command(child))
        parent.kill()
    _wait_for(lambda: "sleep" not in _command(child))


def test_program_whose_parent_is_gone_already_is_not_launched() -> None:
    command = [sys.executable, launch_with_parent.__file__, str(os.getpid() + 1), "/bin/echo", "started"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
