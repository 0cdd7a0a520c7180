"""The manifest: which official files there are, how to know them, and where they are published."""

import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from gdino_build.toml_tables import check_table
from gdino_core.errors import ConfigError

_SHIPPED = "weights.toml"
_KEYS = {"name": str, "size_bytes": int, "sha256": str, "github": str, "huggingface": str}


@dataclass(frozen=True, kw_only=True)
class OfficialFile:
    """One published checkpoint.

    Attributes:
        model: what users call it, such as swint.
        name: of the file, without a folder.
        size_bytes: exact size.
        sha256: 64 lower-case hexadecimal digits.
        github: address at the GitHub release.
        huggingface: address at Hugging Face.
    """

    model: str
    name: str
    size_bytes: int
    sha256: str
    github: str
    huggingface: str

    def __post_init__(self) -> None:
        if Path(self.name).name != self.name:
            raise ConfigError(f"[{self.model}] name is {self.name!r}", fix="give a file name without a folder")
        if self.size_bytes <= 0:
            raise ConfigError(f"[{self.model}] size_bytes is {self.size_bytes}", fix="give the size of the file")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ConfigError(
                f"[{self.model}] sha256 is {self.sha256!r}",
                fix="give 64 lower-case hexadecimal digits, as sha256sum does",
            )


def read_manifest(path: Path | None = None) -> dict[str, OfficialFile]:
    """Read and check a manifest.

    Args:
        path: of a manifest of the user's own; None is the shipped one.

    Returns:
        Names of the models to their files.

    Raises:
        ConfigError: no such file, no TOML, a key that is missing, unknown or of a wrong value.
    """
    source = path or resources.files("gdino_build") / _SHIPPED
    see = f"see build/gdino_build/{_SHIPPED} for an example"
    try:
        content = tomllib.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"manifest {source} cannot be read: {error.strerror}", fix="name an existing file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"manifest {source} is not TOML: {error}", fix=see) from error
    return {model: _official_file(model, table) for model, table in content.items()}


def find_official(model: str, manifest: dict[str, OfficialFile]) -> OfficialFile:
    """Find the file of a model.

    Raises:
        ConfigError: the manifest has no such model.
    """
    if model not in manifest:
        raise ConfigError(f"there are no official weights of {model!r}", fix=f"choose one of {', '.join(manifest)}")
    return manifest[model]


def _official_file(model: str, table: Any) -> OfficialFile:
    if not isinstance(table, dict):
        raise ConfigError(f"the manifest has {model} outside a section", fix="write one section a model, as [swint]")
    check_table(model, table, _KEYS)
    return OfficialFile(model=model, **table)
