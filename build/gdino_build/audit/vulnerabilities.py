"""What is known against the packages, by pip-audit and the database OSV."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from gdino_build.audit.tools import AuditTools

OSV_URL = "https://api.osv.dev/v1/query"
_FOUND_SOME = 1  # pip-audit's exit code


@dataclass(frozen=True, kw_only=True)
class Vulnerability:
    """One that is known.

    Attributes:
        package: name and version.
        names: its numbers, such as CVE-2023-4863.
        fixed_in: versions without it; empty where there is none.
    """

    package: str
    names: Sequence[str]
    fixed_in: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class AuditAnswer:
    """What was found, and what was not looked up at all.

    Attributes:
        looked_up: packages that the database was asked about.
        skipped: packages that it was not, with the reason. pip-audit by itself passes then.
        found: vulnerabilities.
    """

    looked_up: int
    skipped: Sequence[str]
    found: Sequence[Vulnerability]

    def problems(self) -> list[str]:
        """What makes an audit fail, in words."""
        known = [
            f"{one.package}: {', '.join(one.names)}, "
            + (f"fixed in {', '.join(one.fixed_in)}" if one.fixed_in else "not fixed in any version")
            for one in self.found
        ]
        return [*known, *(f"not looked up: {skipped}" for skipped in self.skipped)]


def ask_vulnerabilities(tools: AuditTools, osv_url: str) -> AuditAnswer:
    """Ask about all packages of the runtime environment.

    Args:
        tools: with pip-audit.
        osv_url: of the database's query service.

    Raises:
        ServerError: it does not answer.
    """
    printed = tools.run(
        "pip-audit",
        *("--path", str(tools.runtime_packages), "--vulnerability-service", "osv", "--osv-url", osv_url),
        *("--format", "json", "--progress-spinner", "off"),
        accepted=(0, _FOUND_SOME),
    )
    return read_answer(printed)


def read_answer(printed: str) -> AuditAnswer:
    """Read the JSON of pip-audit."""
    packages = json.loads(printed)["dependencies"]
    skipped = [f"{one['name']} ({one['skip_reason']})" for one in packages if "skip_reason" in one]
    found = [
        Vulnerability(
            package=f"{one['name']} {one['version']}",
            names=[vulnerability["id"], *vulnerability["aliases"]],
            fixed_in=vulnerability["fix_versions"],
        )
        for one in packages
        for vulnerability in one.get("vulns", [])
    ]
    return AuditAnswer(looked_up=len(packages) - len(skipped), skipped=skipped, found=found)
