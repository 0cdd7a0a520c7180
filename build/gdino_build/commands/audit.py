"""What the server and the client are made of, and what is known against it."""

import argparse
from pathlib import Path

from gdino_build.commands.stage import Commands, add_out
from gdino_core.errors import ServerError


def register(commands: Commands) -> None:
    """Add this command."""
    from gdino_build.audit.vulnerabilities import OSV_URL

    text = "licences, bill of materials and known vulnerabilities of what is installed to serve and to ask"
    command = commands.add_parser("audit", help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(run=_audit)
    command.add_argument("--tools", type=Path, default=Path(".venv-audit"), help="environments (default: %(default)s)")
    command.add_argument("--osv-url", default=OSV_URL, help="of the database of vulnerabilities (default: %(default)s)")
    add_out(command)


def _audit(arguments: argparse.Namespace) -> None:
    from gdino_build.audit.bill_of_materials import write_bill
    from gdino_build.audit.licences import format_licences, load_policy, read_packages
    from gdino_build.audit.tools import AuditTools
    from gdino_build.audit.vulnerabilities import ask_vulnerabilities
    from gdino_build.whole_file import write_text

    tools, policy = AuditTools(folder=arguments.tools), load_policy()
    write_bill(tools, arguments.out / "sbom.json")
    print(f"bill of materials: {arguments.out / 'sbom.json'}")
    packages = read_packages(tools)
    write_text(arguments.out / "licences.md", format_licences(packages, policy))
    print(f"licences of {len(packages)} packages: {arguments.out / 'licences.md'}")
    problems = [
        f"{package.name} {package.version}: the licence {package.licence} is not allowed"
        for package in packages
        if policy.verdict(package) is None
    ]
    answer = ask_vulnerabilities(tools, arguments.osv_url)
    print(f"known vulnerabilities: {len(answer.found)} in {answer.looked_up} packages")
    if problems := problems + answer.problems():
        raise ServerError(
            "\n  ".join(["the audit found:", *problems]),
            fix="take another version or another package; allow licences in build/gdino_build/audit/licences.toml",
        )
