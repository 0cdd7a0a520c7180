"""Keep TensorRT's measurements of kernels in a file, so that the next build need not take them again.

TensorRT-RTX measures nothing: it takes the cache and gives it back empty, and its builds are no faster for it.
"""

import hashlib
import json
import os
from pathlib import Path

from gdino_build.tensorrt.flavour import Flavour

_MAGIC = "gdino timing cache 1"


def cache_path(folder: Path, flavour: Flavour, capability: int) -> Path:
    """The file of one flavour, version and compute capability: no other can use it."""
    return folder / f"{flavour.name}-{flavour.version}-sm{capability}.timing"


def read_cache(path: Path) -> bytes:
    """The measurements in a file; none if it is missing or damaged.

    TensorRT must not see damaged bytes: what it makes of them is not documented.
    """
    try:
        head, payload = path.read_bytes().split(b"\n", 1)
        written = json.loads(head)
    except (OSError, ValueError):
        return b""
    return payload if written == _head(payload) else b""


def write_cache(path: Path, payload: bytes) -> None:
    """Write measurements; the file changes only when it is whole, whoever else writes it at the time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(json.dumps(_head(payload)).encode() + b"\n" + payload)
    os.replace(partial, path)


def _head(payload: bytes) -> dict[str, object]:
    return {"format": _MAGIC, "bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
