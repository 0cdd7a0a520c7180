"""Checks tables of TOML files: exactly the keys that they must have, with values of the right type."""

from collections.abc import Mapping
from typing import Any

from gdino_core.errors import ConfigError


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
