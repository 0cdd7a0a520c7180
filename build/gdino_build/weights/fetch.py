"""Fetches an official file: one process at a time, source after source; verified, then renamed."""

import errno
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from gdino_build.weights.download import download
from gdino_build.weights.failures import SourceFailed
from gdino_build.weights.identity import describe_difference, size_of
from gdino_build.weights.manifest import OfficialFile
from gdino_build.weights.sources import LocalSource, Source
from gdino_build.weights.transfer import Patience
from gdino_core.errors import CheckpointError

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


def fetch_weights(official: OfficialFile, sources: Sequence[Source], folder: Path, patience: Patience) -> Path:
    """Make sure that the file is in the folder, under its name and verified.

    A wrong file under that name is set aside, never overwritten. What a broken download left is kept as `.part`.

    Args:
        official: what is expected.
        sources: tried in this order.
        folder: made if it is not there.
        patience: with servers.

    Returns:
        Path of the file.

    Raises:
        CheckpointError: no source gives the file, or it cannot be written.
    """
    path = folder / official.name
    partial = path.with_name(f"{path.name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            if _is_there(path, official):
                return path
            _check_space(official, partial)
            _try_in_order(sources, official, partial, patience)
            _publish(partial, path)
    except OSError as error:
        raise _cannot_write(error, official, partial) from error
    return path


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes from the partial file; the kernel frees the lock of one that dies."""
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _say(f"another process is fetching {path}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _is_there(path: Path, official: OfficialFile) -> bool:
    """Tell whether the file is there already; set aside a wrong one."""
    if not os.path.lexists(path):
        return False
    difference = describe_difference(path, official)
    if not difference:
        return True
    aside = _name_aside(path)
    os.replace(path, aside)
    _say(f"{path} is not the official file: {difference}; it is {aside} now")
    return False


def _name_aside(path: Path) -> Path:
    """A name beside the file that nothing has yet: `.rejected`, `.rejected-2`, ..."""
    aside, number = path.with_name(f"{path.name}.rejected"), 1
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.rejected-{number}")
    return aside


def _check_space(official: OfficialFile, partial: Path) -> None:
    if shutil.disk_usage(partial.parent).free < official.size_bytes - size_of(partial):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _try_in_order(sources: Sequence[Source], official: OfficialFile, partial: Path, patience: Patience) -> None:
    reasons = []
    for source in sources:
        try:
            _bring(source, official, partial, patience)
        except SourceFailed as failed:
            reasons.append(f"  {source.name} ({source.shown}): {failed}")
            _say(f"{source.name}: {failed}")
        else:
            return
    kept = f"\n  {size_of(partial):,} bytes are kept: running again resumes" if size_of(partial) else ""
    raise CheckpointError(
        f"no source gave {official.name} ({official.size_bytes:,} bytes, sha256 {official.sha256}):\n"
        + "\n".join(reasons)
        + kept,
        fix=f"download it elsewhere and run make weights MODEL={official.model} FILE=path/{official.name}, "
        f"or name a mirror: make weights MODEL={official.model} MIRROR=https://host/folder",
    )


def _bring(source: Source, official: OfficialFile, partial: Path, patience: Patience) -> None:
    """Bring the whole, right file to `partial`; wrong bytes are removed."""
    if isinstance(source, LocalSource):
        _copy(source, official, partial)
        return
    begun_elsewhere = size_of(partial) > 0
    if size_of(partial) > official.size_bytes:
        _say(
            f"{partial} is too long: expected {official.size_bytes:,} bytes, found {size_of(partial):,}; starting over"
        )
        partial.unlink()
    download(source, official, partial, patience)
    difference = describe_difference(partial, official)
    if difference and begun_elsewhere:
        # The wrong bytes may be those of an earlier run or source: not this one's fault before it has sent them all.
        _say(f"{source.name}: the resumed file is damaged: {difference}; starting over")
        partial.unlink()
        download(source, official, partial, patience)
        difference = describe_difference(partial, official)
    if difference:
        partial.unlink()
        raise SourceFailed(f"has another file: {difference}")


def _copy(source: LocalSource, official: OfficialFile, partial: Path) -> None:
    # Before the copy, which takes the place of what was downloaded so far.
    try:
        difference = describe_difference(source.path, official)
    except OSError as error:
        raise SourceFailed(f"cannot be read: {error.strerror}") from error
    if difference:
        raise SourceFailed(f"is not the official file: {difference}")
    if partial.exists() and partial.samefile(source.path):
        return
    _say(f"file: copying {source.path}")
    shutil.copyfile(source.path, partial)
    if difference := describe_difference(partial, official):
        partial.unlink()
        raise SourceFailed(f"changed while it was copied: {difference}")


def _publish(partial: Path, path: Path) -> None:
    """Give the file its name once its bytes are on the disk, so that a power cut leaves no half of it."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def _cannot_write(error: OSError, official: OfficialFile, partial: Path) -> CheckpointError:
    if error.errno not in _FULL_DISK:
        return CheckpointError(
            f"cannot write {error.filename or partial}: {error.strerror}",
            fix=f"name a folder that can be written: make weights MODEL={official.model} FOLDER=path",
        )
    have_bytes = size_of(partial)
    return CheckpointError(
        f"the disk of {partial.parent} is full: {official.size_bytes - have_bytes:,} bytes more are needed, "
        f"{shutil.disk_usage(partial.parent).free:,} are free",
        fix=f"free some and run make weights MODEL={official.model} again, which resumes after {have_bytes:,} bytes; "
        "or add FOLDER=path",
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr)
