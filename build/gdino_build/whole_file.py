"""Write files that appear only when they are whole."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def write_figure(path: Path, figure: "Figure", dpi: int) -> None:
    """Draw a figure of matplotlib as PNG under a temporary name, then rename it."""
    partial = path.with_name(f"{path.name}.partial")
    figure.savefig(partial, dpi=dpi, format="png")
    os.replace(partial, path)
