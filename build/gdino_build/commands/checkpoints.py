"""Where weights come from: the official files, and what any other file is."""

import argparse
import os
from pathlib import Path

from gdino_build.commands.stage import Commands, above_zero, resumable
from gdino_build.model import ARCHITECTURES
from gdino_build.original_config import find_architecture
from gdino_build.weights.sources import MIRROR_VARIABLE, SOURCE_NAMES

_WEIGHTS_EXAMPLES = """examples:
  gdino-build weights swint
  gdino-build weights swinb --mirror https://host/models --source mirror github
  gdino-build weights swint --file ~/Downloads/groundingdino_swint_ogc.pth --source file

exit codes: 0 the file is there and verified, 1 it is not, 2 wrong arguments, 130 interrupted
"""


def register(commands: Commands) -> None:
    """Add these commands."""
    doctor = commands.add_parser(
        "doctor-checkpoint",
        help="say what a checkpoint file is, and whether this project can build from it",
        description="Say what a checkpoint file is, and exit with 0 if this project can build from it.",
    )
    doctor.set_defaults(run=_doctor_checkpoint)
    doctor.add_argument("file", type=Path, help=".pth, .bin or .safetensors, or a folder that Hugging Face saved")
    doctor.add_argument(
        "--config",
        help=f"that it must fit: {', '.join(ARCHITECTURES)} or a configuration file of the original "
        "(default: what its shapes tell)",
    )
    command = commands.add_parser(
        "weights",
        help="download an official checkpoint, and verify it",
        description="Download an official checkpoint, or resume the download, and verify it.",
        epilog=_WEIGHTS_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=_weights)
    command.add_argument("model", help="swint, swinb or another section of the manifest")
    command.add_argument(
        "--mirror",
        metavar="URL",
        help="of a folder that holds the file under its official name; the environment variable "
        f"{MIRROR_VARIABLE} says the same and keeps secrets out of the list of processes",
    )
    command.add_argument("--file", type=Path, help="the file itself, downloaded by other means")
    command.add_argument(
        "--source",
        nargs="+",
        default=(),
        choices=SOURCE_NAMES,
        help="which sources, in which order (default: github, huggingface, then the mirror and the file if given)",
    )
    command.add_argument("--folder", type=Path, default=Path("weights"), help="where to (default: %(default)s)")
    command.add_argument("--manifest", type=Path, metavar="FILE", help="instead of build/gdino_build/weights.toml")
    command.add_argument(
        "--timeout",
        type=above_zero,
        default=30.0,
        metavar="S",
        help="seconds without a byte after which a connection counts as broken (default: %(default)g)",
    )


def _doctor_checkpoint(arguments: argparse.Namespace) -> None:
    from gdino_build.checkpoint.doctor import check_buildable, describe_file, describe_state
    from gdino_build.checkpoint.names import official_state
    from gdino_build.checkpoint.reading import read_checkpoint

    config = find_architecture(arguments.config) if arguments.config else None
    file = read_checkpoint(arguments.file)
    print(describe_file(file))
    state = official_state(file.state)
    print(describe_state(state))
    print(check_buildable(state, config))


def _weights(arguments: argparse.Namespace) -> None:
    from gdino_build.weights.fetch import fetch_weights
    from gdino_build.weights.manifest import find_official, read_manifest
    from gdino_build.weights.sources import choose_sources
    from gdino_build.weights.transfer import Patience

    official = find_official(arguments.model, read_manifest(arguments.manifest))
    mirror = arguments.mirror or os.environ.get(MIRROR_VARIABLE, "")
    sources = choose_sources(official, mirror=mirror, file=arguments.file, names=arguments.source)
    with resumable(arguments):
        path = fetch_weights(official, sources, arguments.folder, Patience(timeout_s=arguments.timeout))
    print(f"{path} is the official file: {official.size_bytes:,} bytes, sha256 {official.sha256}")
