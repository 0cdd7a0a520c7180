"""How a server that is about to stop accepts no more requests: a file that its first step looks for.

Triton has no such state. When it is told to stop it refuses what is on its way from one step to the next, so whoever
stops it makes the file first, and waits until all that was accepted is answered.
"""

import os
from pathlib import Path
from typing import Final

from gdino_core.errors import ServerStopping

DRAIN_FILE_VARIABLE: Final = "GDINO_DRAIN_FILE"  # environment variable of the server; names the file


def check_accepting() -> None:
    """Refuse a request while the file is there.

    Raises:
        ServerStopping: it is.
    """
    path = os.environ.get(DRAIN_FILE_VARIABLE)
    if path and Path(path).exists():
        raise ServerStopping("the server is stopping and accepts no more requests", fix="send it to another server")
