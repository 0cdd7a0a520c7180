"""Compile deformable_attention.cpp, the operator that OpenVINO's CPU plugin lacks.

It takes a C++ compiler, but nothing else: OpenVINO's package has the headers and libraries, those of its threads too.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import openvino as ov

from gdino_core.errors import ExportError

SOURCE = Path(__file__).with_name("deformable_attention.cpp")
_OPENVINO = Path(ov.__file__).parent
_FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared", "-s")


def compile_operator(folder: Path) -> Path | None:
    """Compile the operator, or find it compiled already.

    Args:
        folder: where the library is kept; its name tells source and OpenVINO apart.

    Returns:
        The library, for this release of OpenVINO and any x86-64 processor; None, and a warning, where there is no
        compiler ($CXX, else g++).

    Raises:
        ExportError: the compiler fails.
    """
    identity = hashlib.sha256(SOURCE.read_bytes() + repr((_FLAGS, ov.__version__)).encode()).hexdigest()
    library = folder / f"deformable-attention-{identity[:16]}.so"
    if library.is_file():
        return library
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        print(
            "warning: there is no C++ compiler, so deformable attention is put together from OpenVINO's own operators, "
            "which takes five times as long: install g++, and build again",
            file=sys.stderr,
        )
        return None
    folder.mkdir(parents=True, exist_ok=True)
    partial = library.with_suffix(f".{os.getpid()}.partial")
    libraries = [next(_OPENVINO.glob(f"libs/{name}.so.*")) for name in ("libopenvino", "libtbb")]
    files = [SOURCE, *libraries, "-isystem", _OPENVINO / "include", "-o", partial]
    run = subprocess.run([compiler, *_FLAGS, *map(str, files)], capture_output=True, text=True)
    if run.returncode:
        partial.unlink(missing_ok=True)
        raise ExportError(
            f"{compiler} cannot compile {SOURCE.name}: {run.stderr.strip()[-2000:]}",
            fix="set CXX to a g++ of version 12 or later, or compiled_operator = false in the profile's [engine]",
        )
    os.replace(partial, library)
    return library
