"""From a deploy.toml to an endpoint that answers, and back."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gdino_build.commands.stage import Commands, add_out
from gdino_build.terminal_line import show_line
from gdino_core.errors import GdinoError

if TYPE_CHECKING:
    from gdino_build.deployment.steps import Deployment


def register(commands: Commands) -> None:
    """Add these commands."""
    for name, run, text in (
        ("deploy", _deploy, "build, verify and serve what a deploy.toml says, and show that it answers"),
        ("undeploy", _undeploy, "stop the server of a deploy.toml after it has answered what it accepted"),
    ):
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.set_defaults(run=run)
        command.add_argument("--config", type=Path, default=Path("deploy.toml"), help="from make plan")
        command.add_argument("--environment", type=Path, default=Path(".venv"), help="of the project")
        add_out(command)


def _deploy(arguments: argparse.Namespace) -> None:
    from gdino_build.deployment.command_line import alone
    from gdino_build.deployment.settings import load_deploy_settings
    from gdino_build.deployment.steps import Deployment, server_urls

    settings = load_deploy_settings(arguments.config)
    with alone(arguments.out / settings.profile, show_line) as lock:
        deployment = Deployment(
            settings=settings,
            out=arguments.out,
            environment=arguments.environment,
            lock=lock,
            progress=show_line,
        )
        _take_steps(deployment)
        for name, url in server_urls(deployment).items():
            print(f"{name:<8} {url}")
    print(f"make undeploy CONFIG={arguments.config} stops it")


def _take_steps(deployment: "Deployment") -> None:
    """Take all steps, and show what each is at and comes to."""
    from gdino_build.deployment.steps import STEPS

    for number, (name, step) in enumerate(STEPS, start=1):
        title = f"[{number}/{len(STEPS)}] {name:<8}"
        print(title, end="", flush=True)
        started = time.monotonic()
        try:
            said = step(deployment)
        except GdinoError:
            print(" FAILED", flush=True)
            raise
        show_line("")
        if sys.stderr.isatty():  # where what the step was at stood over the title
            print(f"\r{title}", end="")
        print(f" {said} ({time.monotonic() - started:.1f} s)", flush=True)


def _undeploy(arguments: argparse.Namespace) -> None:
    from gdino_build.deployment.settings import load_deploy_settings
    from gdino_build.deployment.steps import stop_server

    settings = load_deploy_settings(arguments.config)
    stopped = stop_server(settings, arguments.out / settings.profile, show_line)
    show_line("")
    print(f"stopped {stopped}" if stopped else f"no server of {arguments.config} runs")
