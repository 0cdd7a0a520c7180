"""Write files that appear only when they are whole."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdino_core.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_json(path: Path, content: Any) -> None:
    """Write content as indented JSON; see `write_text`."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8 to a temporary name, then rename it; the folder is made when missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that its owner alone may open, at no time anybody else; the folder is made when missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)  # one that is left over may have other permissions
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    os.replace(partial, path)


def refuse_overwriting(paths: Sequence[Path]) -> None:
    """Refuse to write over files that somebody may rely on.

    Raises:
        ConfigError: one is there.
    """
    for path in paths:
        if path.exists():
            raise ConfigError(f"{path} is there already", fix="choose another FOLDER, or FORCE=1 (--force) replaces it")


def write_figure(path: Path, figure: "Figure", dpi: int) -> None:
    """Draw a figure of matplotlib as PNG under a temporary name, then rename it."""
    partial = path.with_name(f"{path.name}.partial")
    figure.savefig(partial, dpi=dpi, format="png")
    os.replace(partial, path)
