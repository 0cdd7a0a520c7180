"""API keys: the headers that carry them, and the files that hold them."""

import re
import stat
from pathlib import Path
from typing import Final

from gdino_core.errors import ConfigError

INFERENCE_KEY: Final = "gdino-inference-key"  # opens inference and what describes the models
CONTROL_KEY: Final = "gdino-control-key"  # opens statistics, logging, tracing and the like
LEAST_CHARACTERS: Final = 32
# Triton's flags are split at "," ":" and "="; a header's value has no line breaks.
_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def grpc_header(name: str) -> str:
    """The header of a gRPC call that carries a key; Triton puts the prefix."""
    return f"triton-grpc-protocol-{name}"


def read_key_file(path: Path) -> str:
    """Read an API key from a file that nobody but its owner may open.

    Raises:
        ConfigError: it is not there, others may open it, or it holds no key.
    """
    check_private(path)
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the key file {path} cannot be read: {error}", fix="make keys writes one") from error
    return check_key(text, str(path))


def check_key(text: str, where: str) -> str:
    """Return a key that is long enough to be one; a message about another never shows it.

    Raises:
        ConfigError: it is too short, or has other characters than letters, digits, "-" and "_".
    """
    if len(text) < LEAST_CHARACTERS or not _KEY.fullmatch(text):
        raise ConfigError(
            f"{where} holds no API key: {LEAST_CHARACTERS} or more letters, digits, - and _",
            fix="make keys writes one",
        )
    return text


def check_private(path: Path) -> None:
    """Refuse a secret file that is not there, or that others than its owner may open.

    Raises:
        ConfigError: with the command that mends it.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", fix="give the path of the file") from error
    if not stat.S_ISREG(mode):
        raise ConfigError(f"{path} is no file", fix="give the path of the file")
    if mode & 0o077:
        raise ConfigError(
            f"others may open {path}, which holds a secret ({stat.filemode(mode)})", fix=f"chmod 600 {path}"
        )
