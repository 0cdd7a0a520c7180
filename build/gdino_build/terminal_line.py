"""One line of a terminal that tells what is going on, rewritten again and again."""

import sys


def show_line(text: str) -> None:
    """Rewrite the line, "" empties it; silent where nobody looks."""
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{text}", end="\r", file=sys.stderr, flush=True)
