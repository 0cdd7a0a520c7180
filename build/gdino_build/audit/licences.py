"""Licences of all packages, beside those that are allowed."""

import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from gdino_build.audit.tools import AuditTools


@dataclass(frozen=True, kw_only=True)
class Package:
    """One package, and the licence that it writes of itself."""

    name: str
    version: str
    licence: str
    url: str


@dataclass(frozen=True, kw_only=True)
class LicencePolicy:
    """licences.toml.

    Attributes:
        allowed: names of licences.
        exceptions: reasons by package and licence.
    """

    allowed: frozenset[str]
    exceptions: dict[tuple[str, str], str]

    def verdict(self, package: Package) -> str | None:
        """The word "allowed", the reason of an exception, or None where it is neither."""
        if self._allows(package.licence):
            return "allowed"
        return self.exceptions.get((package.name, package.licence))

    def _allows(self, licence: str) -> bool:
        """Of several licences all must be allowed, of a choice between them one."""
        return any(
            all(part.strip(" ()") in self.allowed for part in re.split(r" AND |; ", choice))
            for choice in licence.split(" OR ")
        )


def load_policy() -> LicencePolicy:
    """Read licences.toml."""
    source = resources.files("gdino_build.audit") / "licences.toml"
    content: dict[str, Any] = tomllib.loads(source.read_text(encoding="utf-8"))
    exceptions = {(one["package"], one["licence"]): one["reason"] for one in content["exception"]}
    return LicencePolicy(allowed=frozenset(content["allowed"]), exceptions=exceptions)


def read_packages(tools: AuditTools) -> list[Package]:
    """Ask pip-licenses what is installed."""
    # All licences that a package names, and its SPDX expression before its classifiers.
    asked = ("--python", str(tools.runtime_python), "--from=mixed", "--format=json", "--with-urls")
    found = json.loads(tools.run("pip-licenses", *asked))
    return [Package(name=one["Name"], version=one["Version"], licence=one["License"], url=one["URL"]) for one in found]


def format_licences(packages: Sequence[Package], policy: LicencePolicy) -> str:
    """A table in Markdown."""
    lines = ["# Licences of what is installed to serve and to ask", "", "| package | version | licence | |"]
    lines.append("|---|---|---|---|")
    for package in sorted(packages, key=lambda one: one.name.lower()):
        verdict = policy.verdict(package) or "NOT ALLOWED"
        lines.append(f"| [{package.name}]({package.url}) | {package.version} | {package.licence} | {verdict} |")
    return "\n".join(lines) + "\n"
