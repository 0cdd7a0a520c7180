"""What the commands of `gdino-build` share: their arguments, their folder, and how they end."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from gdino_build.profile import Profile, load_profile, profile_names
from gdino_build.random_weights import random_state_dict
from gdino_core import contract
from gdino_core.errors import ExportError

if TYPE_CHECKING:
    from gdino_build.model import GroundingDino, ModelConfig

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
WEIGHTS_FILE_NAME = "weights.json"  # beside the exported graphs: what they were exported from


def add_stage(
    commands: Commands, name: str, run: Callable[[Profile, argparse.Namespace], None], text: str
) -> argparse.ArgumentParser:
    """Add a command that works on a built profile; `run` gets the profile and all arguments."""
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(run=partial(_run_stage, run))
    command.add_argument(
        "--profile",
        default="demo-cpu",
        help=f"one of {', '.join(profile_names())}, or a .toml file (default: %(default)s)",
    )
    add_out(command)
    return command


def add_out(command: argparse.ArgumentParser) -> None:
    """Add --out."""
    command.add_argument("--out", type=Path, default=Path("out"), help="root of all outputs (default: %(default)s)")


def add_random_weights(command: argparse.ArgumentParser) -> None:
    """Add --random-weights."""
    command.add_argument(
        "--random-weights", action="store_true", help="deterministic random weights instead of the checkpoint"
    )


def add_goldens(command: argparse.ArgumentParser) -> None:
    """Add --goldens."""
    command.add_argument(
        "--goldens", type=Path, default=Path("tests/goldens"), help="answers of the original (default: %(default)s)"
    )


def count(text: str) -> int:
    """Read a whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def size(text: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH, multiples of the stride."""
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()) or int(height) % contract.STRIDE or int(width) % contract.STRIDE:
        raise argparse.ArgumentTypeError(f"{text} is not HEIGHTxWIDTH in multiples of {contract.STRIDE}: 800x1216")
    return int(height), int(width)


def above_zero(text: str) -> float:
    """Read a number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _run_stage(stage: Callable[[Profile, argparse.Namespace], None], arguments: argparse.Namespace) -> None:
    stage(load_profile(arguments.profile), arguments)


def folder_of(profile: Profile, arguments: argparse.Namespace) -> Path:
    """All outputs of a profile: out/<profile>."""
    out: Path = arguments.out
    return out / profile.name


def check_files(paths: list[Path]) -> None:
    """Say which stage to run when what it makes is not there."""
    for path in paths:
        if not path.is_file():
            raise ExportError(f"{path} does not exist", fix="run the stages before this one, or make repository")


def write_random_weights(architecture: "ModelConfig", out: Path) -> Path:
    """Write random weights for the original, whose speed does not depend on them; returns the file."""
    import safetensors.torch

    path = out / "random" / f"{architecture.name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(random_state_dict(architecture), path)
    return path


def model_of(profile: Profile, arguments: argparse.Namespace) -> "GroundingDino":
    """The module with the weights that the arguments ask for."""
    from gdino_build.checkpoint import canonical_state_dict, load_model, read_state_dict

    config = profile.architecture
    if arguments.random_weights:
        return load_model(config, random_state_dict(config))
    return load_model(config, canonical_state_dict(read_state_dict(profile.checkpoint)))


@contextmanager
def resumable(arguments: argparse.Namespace) -> Iterator[None]:
    """Say on Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"gdino-build {arguments.command}: interrupted; run it again to resume", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
