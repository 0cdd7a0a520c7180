"""Which server of a profile runs: a record that holds for as long as the program that serves lives.

The program holds a lock that ends with it, however it ends: a process id alone may be another's by now.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from gdino_build.server_ports import ServerPorts
from gdino_build.whole_file import write_json

_RECORD = "server.json"
_LOCK = "server.lock"


@dataclass(frozen=True, kw_only=True)
class ServerRecord:
    """A server that runs or is starting.

    Attributes:
        pid: of the program that serves, which SIGTERM stops; None for a container.
        manifest_sha256: of what it serves.
        ports: that it listens on.
    """

    pid: int | None
    manifest_sha256: str
    ports: ServerPorts

    def __str__(self) -> str:
        """The program or container."""
        return "the container" if self.pid is None else f"process {self.pid}"


@contextlib.contextmanager
def recorded_server(folder: Path, manifest_sha256: str, ports: ServerPorts) -> Iterator[None]:
    """Keep the record of this program while a `with` block lasts; a second server of a profile leaves it alone."""
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield
            return
        write_record(folder / _RECORD, ServerRecord(pid=os.getpid(), manifest_sha256=manifest_sha256, ports=ports))
        try:
            yield
        finally:
            (folder / _RECORD).unlink(missing_ok=True)


def find_server(folder: Path) -> ServerRecord | None:
    """The server of a profile that runs or is starting; None where there is none.

    Args:
        folder: of the profile, such as out/deploy.
    """
    try:
        with (folder / _LOCK).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    except FileNotFoundError:
        return None
    else:
        return None  # nobody holds the lock: a record is of a program that was killed
    return read_record(folder / _RECORD)  # none: it begins or ends just now


def write_record(path: Path, record: ServerRecord) -> None:
    """Write a record as JSON."""
    write_json(path, asdict(record))


def read_record(path: Path) -> ServerRecord | None:
    """Read what `write_record` wrote; None where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return ServerRecord(**{**found, "ports": ServerPorts(**found["ports"])})
