"""Read TOML files, and check their tables: exactly the keys that they must have, with values of the right type."""

import tomllib
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from typing import Any

from gdino_core.errors import ConfigError


def toml_names(folder: Traversable) -> list[str]:
    """Names of the TOML files in a folder, without the suffix."""
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_toml(source: Traversable, name: str, fix: str) -> dict[str, Any]:
    """Read a TOML file that is there.

    Args:
        source: the file.
        name: what to call it where it is none.
        fix: what helps then.

    Raises:
        ConfigError: it is not TOML.
    """
    try:
        return tomllib.loads(source.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} is not TOML: {error}", fix=fix) from error


def check_table(name: str, table: Mapping[str, Any], types: Mapping[str, type]) -> None:
    """Check the keys and the types of the values of one table.

    Args:
        name: of the table, as in [name].
        table: as tomllib reads it.
        types: of all keys that it must have; it may have no other.

    Raises:
        ConfigError: a key is missing or unknown, or its value is of another type.
    """
    for key in sorted(types.keys() ^ table.keys()):
        problem = "lacks" if key in types else "has the unknown key"
        raise ConfigError(f"[{name}] {problem} {key}", fix=f"its keys are {', '.join(types)}")
    for key, expected in types.items():
        if type(table[key]) is not expected:  # a bool is an int to isinstance
            raise ConfigError(f"[{name}] {key} is {table[key]!r}", fix=f"write a value of type {expected.__name__}")
