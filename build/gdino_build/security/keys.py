"""Make API keys: long random ones, each in a file that its owner alone may open."""

import secrets
from pathlib import Path
from typing import Final

from gdino_build.whole_file import refuse_overwriting, write_private

KEY_FILES: Final = ("inference.key", "control.key")
_BYTES: Final = 32  # 256 bits: not to be guessed, whatever may be tried


def make_keys(folder: Path, *, force: bool = False) -> list[Path]:
    """Write one key for inference and one for control.

    Args:
        folder: where; made when missing.
        force: replace keys that are there.

    Returns:
        The files.

    Raises:
        ConfigError: a key is there already.
    """
    paths = [folder / name for name in KEY_FILES]
    if not force:
        refuse_overwriting(paths)
    for path in paths:
        write_private(path, secrets.token_urlsafe(_BYTES).encode() + b"\n")
    return paths
