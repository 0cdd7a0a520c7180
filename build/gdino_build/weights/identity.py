"""Tells whether a file is the one that the manifest names."""

import hashlib
from pathlib import Path

from gdino_build.weights.manifest import OfficialFile


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def describe_difference(path: Path, expected: OfficialFile) -> str:
    """Say how a file differs from what the manifest expects; an empty text if it does not."""
    if not path.is_file():
        return "it is a folder" if path.is_dir() else "it does not exist"
    size_bytes = path.stat().st_size
    if size_bytes != expected.size_bytes:
        return f"expected {expected.size_bytes:,} bytes, found {size_bytes:,}"
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != expected.sha256:
        return f"expected sha256 {expected.sha256}, found {sha256}"
    return ""
