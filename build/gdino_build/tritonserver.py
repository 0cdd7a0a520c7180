"""Find the tritonserver that PyPI's nvidia-pytriton carries, and start it as a plain process."""

import ctypes.util
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gdino_build.launch_with_parent import launcher
from gdino_core.errors import ServerError

INSTALL_COMMAND: Final = "pip install --no-deps --target {folder} nvidia-pytriton==0.7.0"
FIRST_NUMPY_THAT_FAILS: Final = 2
_STUB = "triton_python_backend_stub"


@dataclass(frozen=True, kw_only=True)
class TritonRuntime:
    """Where the parts of a tritonserver are.

    Attributes:
        server: the program.
        backends: folder of backends; the Python backend's stub is in it.
        caches: folder of response caches.
        libpython: folder with the shared library of this Python, which the stub needs.
        environment: the Python environment whose packages the models see.
    """

    server: Path
    backends: Path
    caches: Path
    libpython: Path | None
    environment: Path


def find_runtime(environment: Path | None = None) -> TritonRuntime:
    """Find the tritonserver installed in the folder `tritonserver` of an environment, and make it ready to run.

    Args:
        environment: a virtual environment of the Python that runs this; None is the one that this runs in.

    Raises:
        ServerError: a part is missing, or this machine or environment cannot run it.
    """
    environment = environment or Path(sys.prefix)
    folder = environment / "tritonserver"
    root = folder / "pytriton" / "tritonserver"
    server, backends = root / "bin" / "tritonserver", root / "backends"
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise ServerError(
            f"the embedded tritonserver is built for Linux x86_64, this is {platform.system()} {platform.machine()}",
            fix="use the server image, see docker/README.md",
        )
    if not server.is_file():
        raise ServerError(
            f"there is no tritonserver in {folder}",
            fix="run make setup, or " + INSTALL_COMMAND.format(folder=folder),
        )
    _check_numpy(environment)
    _place_stub(root / "python_backend_stubs", backends / "python" / _STUB)
    return TritonRuntime(
        server=server,
        backends=backends,
        caches=root / "caches",
        libpython=_find_libpython(),
        environment=environment,
    )


def start_process(
    runtime: TritonRuntime, arguments: Sequence[str], log_file: Path, variables: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start tritonserver in a session of its own; the kernel stops it when this process dies.

    Args:
        runtime: what to start.
        arguments: flags of tritonserver.
        variables: environment variables beside those of this process.
        log_file: gets everything that the server and its models print; emptied first.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("wb") as log:
        # A session of its own, so that Ctrl-C in a terminal reaches us alone and we stop the server in order.
        return subprocess.Popen(
            [
                *launcher(),
                str(runtime.server),
                f"--backend-directory={runtime.backends}",
                f"--cache-directory={runtime.caches}",
                *arguments,
            ],
            env=process_environment(runtime, os.environ | variables),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def process_environment(runtime: TritonRuntime, base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that the server is started with.

    Args:
        runtime: what is started.
        base: variables to start from.
    """
    variables = dict(base)
    # numpy has small products only to do here; threads that wait for more take the engine's processors meanwhile.
    variables.setdefault("OPENBLAS_NUM_THREADS", "1")
    # The stub finds the packages of the models through the python3 that is first on PATH.
    variables["PATH"] = os.pathsep.join([str(runtime.environment / "bin"), base.get("PATH", os.defpath)])
    if runtime.libpython is not None:
        paths = [str(runtime.libpython), base.get("LD_LIBRARY_PATH", "")]
        variables["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, paths))
    return variables


def _check_numpy(environment: Path) -> None:
    packages = environment / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    found = next(iter(importlib.metadata.distributions(name="numpy", path=[str(packages)])), None)
    version = found.version if found else "none"
    if not found or int(version.split(".")[0]) >= FIRST_NUMPY_THAT_FAILS:
        # The stub's pybind11 reads numpy 2's dtypes at the wrong offsets: arrays arrive as garbage, or it dies.
        raise ServerError(
            f"the embedded tritonserver's Python backend needs numpy 1.x, {packages} has {version}",
            fix="pip install numpy==1.26.4",
        )


def _place_stub(stubs: Path, target: Path) -> None:
    """Put the stub for this Python beside the backend, where the backend and the stub's library path expect it."""
    source = stubs / sysconfig.get_python_version() / _STUB
    if not source.is_file():
        raise ServerError(
            f"the embedded tritonserver has no Python backend for Python {sysconfig.get_python_version()}",
            fix=f"make the environment with one of {', '.join(sorted(path.name for path in stubs.glob('3.*')))}",
        )
    if target.is_file() and target.stat().st_size == source.stat().st_size:
        return
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.copy2(source, partial)
    os.replace(partial, target)  # another process may do the same at this moment


def _find_libpython() -> Path | None:
    """Return the folder to look in for libpython, None where the system's linker finds it by itself."""
    name = sysconfig.get_config_var("INSTSONAME") or ""
    folder = Path(sysconfig.get_config_var("LIBDIR") or "")
    if ".so" in name and (folder / name).is_file():
        return folder
    version = sysconfig.get_python_version()
    if ctypes.util.find_library(f"python{version}") is None:
        raise ServerError(
            f"there is no shared libpython{version}.so.1.0, which Triton's Python backend loads",
            fix=f"install the Debian package libpython{version}, or use a Python built with --enable-shared",
        )
    return None
