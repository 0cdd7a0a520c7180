"""Tells what kind of file a checkpoint is, by its content: names mislead."""

import json
import tarfile
import zipfile
from pathlib import Path
from typing import Literal

from gdino_core.errors import CheckpointError

Format = Literal["zip pickle", "legacy pickle", "safetensors"]
_AGAIN = "download it again"
_SAFETENSORS_LENGTH_BYTES = 8  # the length of the header, before the header itself


def file_format(path: Path) -> Format:
    """Tell the format by the content.

    Returns:
        "zip pickle" (torch.save since 1.6), "legacy pickle" (before that) or "safetensors".

    Raises:
        CheckpointError: it is none of these, or is cut short.
    """
    with path.open("rb") as file:
        head = file.read(32)
    if head[4:9] == b"\0\0\0\0{":  # a header of less than 4 GiB, in JSON
        _check_safetensors_size(path, int.from_bytes(head[:_SAFETENSORS_LENGTH_BYTES], "little"))
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            raise CheckpointError(f"{described(path)} is cut short: it is a zip without its end", fix=_AGAIN)
        return "zip pickle"
    if head.startswith(b"\x80"):
        return "legacy pickle"
    raise CheckpointError(f"{described(path)} is not one: it is {_seen(path, head)}", fix=_AGAIN)


def described(path: Path) -> str:
    """The file as errors name it; its size tells a person whether it is whole."""
    return f"checkpoint {path} ({path.stat().st_size:,} bytes)"


def _seen(path: Path, head: bytes) -> str:
    if not head:
        return "empty"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, for which `git lfs pull` gets the file"
    if head.lstrip().startswith(b"<"):
        return "a web page"
    if tarfile.is_tarfile(path):
        return "a tar archive, perhaps with the checkpoint in it"
    return f"of no known format, and starts with {head!r}"


def _check_safetensors_size(path: Path, header_bytes: int) -> None:
    expected = _SAFETENSORS_LENGTH_BYTES + header_bytes
    if expected <= path.stat().st_size:
        with path.open("rb") as file:
            file.seek(_SAFETENSORS_LENGTH_BYTES)
            header = file.read(header_bytes)
        try:
            entries = json.loads(header).values()
            expected += max((entry["data_offsets"][1] for entry in entries if "data_offsets" in entry), default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return  # the reader says better what is wrong with it
    if path.stat().st_size < expected:
        raise CheckpointError(
            f"{described(path)} is cut short: its header announces {expected:,} bytes or more", fix=_AGAIN
        )
