"""Certificates and keys, and the flags of `serve` that use them."""

import argparse
from dataclasses import asdict, fields
from pathlib import Path

from gdino_build.commands.stage import Commands, count
from gdino_build.profile import Profile
from gdino_build.security.settings import SecuritySettings

_METAVARS = {"address": "IPV4", "metrics_address": "IPV4", "accept_exposed": "WHY", "probe_name": "HOST"}


def register(commands: Commands) -> None:
    """Add these commands."""
    for name, run, text in (
        ("certs", _certs, "make an authority, and certificates of a server and a client, for tests"),
        ("keys", _keys, "make an API key for inference and one for control"),
    ):
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.set_defaults(run=run)
        command.add_argument("folder", type=Path, help="where; made when missing")
        command.add_argument("--force", action="store_true", help="replace what is there")
        if name == "certs":
            command.add_argument(
                "--name",
                action="append",
                dest="names",
                metavar="HOST",
                help="host or address of the server, repeatable",
            )
            command.add_argument("--days", type=count, default=90, help="how long they hold (default: %(default)s)")


def add_security(command: argparse.ArgumentParser) -> None:
    """Add a flag for each key of [security], such as --tls-cert for tls_cert."""
    group = command.add_argument_group("in place of the profile's [security]")
    for field in fields(SecuritySettings):
        flag = f"--{field.name.replace('_', '-')}"
        if field.type is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction)
        else:
            group.add_argument(flag, metavar=_METAVARS.get(field.name, "FILE"))


def security_of(profile: Profile, arguments: argparse.Namespace) -> SecuritySettings:
    """[security] of a profile, but for the flags that were given."""
    given = {field.name: getattr(arguments, field.name) for field in fields(SecuritySettings)}
    changed = {name: value for name, value in given.items() if value is not None}
    return SecuritySettings(**(asdict(profile.security) | changed))


def _certs(arguments: argparse.Namespace) -> None:
    from gdino_build.security.certificates import DEFAULT_NAMES, make_certificates

    names = arguments.names or DEFAULT_NAMES
    for path in make_certificates(arguments.folder, names, days=arguments.days, force=arguments.force):
        print(path)


def _keys(arguments: argparse.Namespace) -> None:
    from gdino_build.security.keys import make_keys

    for path in make_keys(arguments.folder, force=arguments.force):
        print(path)
