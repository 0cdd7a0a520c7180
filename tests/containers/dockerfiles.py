"""Read Dockerfiles: instructions in their order, with continued lines joined and comments left out."""

import json
import re
from pathlib import Path

FOLDER = Path("docker")


def instructions(path: Path) -> list[tuple[str, str]]:
    """Each instruction and its text."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, text) for name, _, text in (line.partition(" ") for line in joined.splitlines() if line)]


def texts(path: Path, name: str) -> list[str]:
    """Texts of all instructions of a name."""
    return [text for found, text in instructions(path) if found == name]


def command(path: Path, name: str) -> list[str]:
    """The command of CMD, ENTRYPOINT or HEALTHCHECK in its JSON form."""
    [text] = texts(path, name)
    words: list[str] = json.loads(text[text.index("[") :])
    return words


def versions() -> dict[str, str]:
    """What versions.env sets."""
    lines = (FOLDER / "versions.env").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}
