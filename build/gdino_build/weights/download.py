"""Downloads from one source of the web: tries again when it breaks, and resumes where it stopped."""

import sys
import time
from pathlib import Path

from gdino_build.weights.failures import ResumeRefused, SourceFailed, TransferBroken
from gdino_build.weights.identity import size_of
from gdino_build.weights.manifest import OfficialFile
from gdino_build.weights.sources import WebSource
from gdino_build.weights.transfer import Patience, continue_partial


def download(source: WebSource, official: OfficialFile, partial: Path, patience: Patience) -> None:
    """Bring the partial file to its full size.

    Args:
        source: where from.
        official: what is expected.
        partial: may hold the beginning of the file, from any source.
        patience: how often and how long to try.

    Raises:
        SourceFailed: the source does not give the file; what came of it is kept, if it may be the beginning of it.
        OSError: the partial file cannot be written.
    """
    pause_s, tries_left, may_start_over = patience.pause_s, patience.tries, True
    while size_of(partial) < official.size_bytes:
        _say(source, f"{source.shown} ({size_of(partial):,} of {official.size_bytes:,} bytes are here)")
        try:
            continue_partial(source.url, official, partial, patience.timeout_s)
        except TransferBroken as broken:
            tries_left -= 1
            if tries_left == 0:
                raise SourceFailed(f"{broken}, after {patience.tries} tries") from broken
            _say(source, f"{broken}; trying again in {pause_s:g} s")
            time.sleep(pause_s)
            pause_s *= 2
        except ResumeRefused as refused:
            if not may_start_over:
                raise
            may_start_over = False
            _say(source, f"{refused}; starting over")
            partial.unlink()


def _say(source: WebSource, text: str) -> None:
    print(f"{source.name}: {text}", file=sys.stderr)
