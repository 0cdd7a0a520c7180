"""What to deploy on a machine, from a few answers."""

import argparse
import sys
from pathlib import Path

from gdino_build.commands.stage import Commands
from gdino_build.whole_file import write_text
from gdino_core.errors import ConfigError

_EXAMPLES = """examples:
  gdino-build plan                                   asks
  gdino-build plan --answers cpu                     shipped answers: a machine without a GPU, and the demo
  gdino-build plan --answers cpu --model swint --labels 1203
  gdino-build plan --answers mine.toml --config edge.toml
"""


def register(commands: Commands) -> None:
    """Add this command."""
    from gdino_build.planning.answers import QUESTIONS, answers_names

    command = commands.add_parser(
        "plan",
        help="ask a few questions, and write a commented deploy.toml",
        description="Ask a few questions, and write a commented deploy.toml.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=_plan)
    command.add_argument("--answers", help=f"{', '.join(answers_names())}, or a .toml file; what it lacks is asked")
    command.add_argument("--config", type=Path, default=Path("deploy.toml"), help="to write (default: %(default)s)")
    command.add_argument("--force", action="store_true", help="write over a file that says something else")
    for name, question in QUESTIONS.items():
        flag = f"--{name.replace('_', '-')}"
        command.add_argument(flag, choices=question.choices or None, help=question.text)


def _plan(arguments: argparse.Namespace) -> None:
    from gdino_build.planning.answers import QUESTIONS, complete_answers, load_answers
    from gdino_build.planning.decide import decide, load_table
    from gdino_build.planning.deploy_file import format_deploy_file

    given = load_answers(arguments.answers) if arguments.answers else {}
    flags = {name: getattr(arguments, name) for name in QUESTIONS if getattr(arguments, name) is not None}
    answers = complete_answers(given | flags, input if sys.stdin.isatty() else None)
    text = format_deploy_file(answers, decide(answers, load_table()))
    config: Path = arguments.config
    if config.exists() and config.read_text(encoding="utf-8") != text and not arguments.force:
        raise ConfigError(
            f"{config} is there and says something else", fix="write another: --config, or write over it: --force"
        )
    write_text(config, text)
    print(text, end="")
    print(f"wrote {config}: make deploy CONFIG={config}")
