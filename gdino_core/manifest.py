"""Tell whether a model repository is whole: every file that its manifest names is there, with the bytes that it names.

A copy that was broken off loads as far as it got, or worse, with an engine of another build.

    python3 -m gdino_core.manifest /models
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from gdino_core.errors import ConfigError
from gdino_core.program import exit_code_of

MANIFEST_FILE_NAME: Final = "manifest.json"
_FIX: Final = "copy all of out/<profile>/repository/ again"


def read_manifest(repository: Path, part: str, fix: str = _FIX) -> Any:
    """A part of a repository's manifest, such as "files".

    Raises:
        ConfigError: there is no manifest, or it lacks the part; `fix` says what helps then.
    """
    try:
        return json.loads((repository / MANIFEST_FILE_NAME).read_text(encoding="utf-8"))[part]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{repository} is no model repository: {error!r}", fix=fix) from error


def check_repository(repository: Path) -> int:
    """Compare size and SHA-256 of each file with the manifest.

    Args:
        repository: as `assemble` wrote it, or a copy.

    Returns:
        How many files were compared.

    Raises:
        ConfigError: there is no manifest, or a file is missing or differs.
    """
    files: dict[str, dict[str, Any]] = read_manifest(repository, "files")
    for name, expected in files.items():
        file = repository / name
        if not file.is_file():
            raise ConfigError(f"{file} is missing", fix=_FIX)
        if file.stat().st_size != expected["bytes"]:
            raise ConfigError(f"{file} has {file.stat().st_size:,} of {expected['bytes']:,} bytes", fix=_FIX)
        with file.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        if sha256 != expected["sha256"]:
            raise ConfigError(f"{file} has sha256 {sha256}, not {expected['sha256']}", fix=_FIX)
    return len(files)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the repository in a folder; 1 where it is not whole."""
    parser = argparse.ArgumentParser(prog="python3 -m gdino_core.manifest", description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=Path, help="folder with manifest.json")
    given = parser.parse_args(arguments)

    def work() -> None:
        print(f"{check_repository(given.repository)} files of {given.repository} are as its manifest says")

    return exit_code_of(work)


if __name__ == "__main__":
    sys.exit(main())
