"""How the programs of this package end."""

import sys
from collections.abc import Callable

from gdino_core.errors import GdinoError


def exit_code_of(work: Callable[[], None]) -> int:
    """Do a program's work: 0, or 1 where it met one of our errors, which is then on stderr."""
    try:
        work()
    except GdinoError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
