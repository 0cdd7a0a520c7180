"""Start a server, unless its plans are of another TensorRT or for other GPUs than are here.

    python3 -m gdino_core.plan_check tritonserver --model-repository=/models …

TensorRT itself says of such a plan that its version tag does not match, or less; this says which command rebuilds it.
What has no --model-repository, and a repository without plans, is started as it is.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gdino_core.errors import ServerError
from gdino_core.manifest import read_manifest
from gdino_core.program import exit_code_of

_REPOSITORY_FLAG: Final = "--model-repository="
_LIBRARY: Final = "libnvinfer.so.10"
_ASK_GPUS: Final = ("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")


def tensorrt_here() -> str:
    """Version of the TensorRT that a server here loads, such as "10.7.0".

    Raises:
        ServerError: there is none.
    """
    try:
        number = int(ctypes.CDLL(_LIBRARY).getInferLibVersion())
    except (OSError, AttributeError) as error:
        raise ServerError(f"there is no TensorRT here: {error}", fix="use the image of docker/") from error
    return f"{number // 10_000}.{number // 100 % 100}.{number % 100}"


def capabilities_here() -> list[int]:
    """Compute capability of each GPU, such as 89.

    Raises:
        ServerError: none is seen.
    """
    try:
        done = subprocess.run(_ASK_GPUS, capture_output=True, text=True, timeout=30, check=True)
        found = [int(line.replace(".", "")) for line in done.stdout.split()]
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ServerError(f"no GPU is seen: {error}", fix="start the container with --gpus all") from error
    if not found:
        raise ServerError("no GPU is seen", fix="start the container with --gpus all")
    return found


def check_plans(
    repository: Path,
    tensorrt: Callable[[], str] = tensorrt_here,
    capabilities: Callable[[], list[int]] = capabilities_here,
) -> int:
    """Compare the plans that a repository's manifest names with TensorRT and the GPUs here.

    Args:
        repository: as `assemble` wrote it.
        tensorrt: tells the version of TensorRT.
        capabilities: tells the GPUs.

    Returns:
        How many plans were compared; none of a repository for CPUs.

    Raises:
        ConfigError: there is no manifest.
        ServerError: a plan is of another TensorRT, or none is for one of the GPUs.
    """
    engines: Mapping[str, Mapping[str, Any]] = read_manifest(
        repository, "engines", fix="mount out/<profile>/repository"
    )
    plans = {
        (model, plan["capability"]): plan
        for model, found in engines.items()
        for plan in found.values()
        if isinstance(plan, dict) and "capability" in plan
    }
    if not plans:
        return 0
    here, gpus = tensorrt(), capabilities()
    for (model, capability), plan in plans.items():
        if plan["version"].split(".")[:3] != here.split("."):
            raise ServerError(
                f"the plan of {model} for SM={capability} is of TensorRT {plan['version']}, here is {here}",
                fix=f"rebuild it with the build image of this release: {plan['rebuild_command']}",
            )
    for model in engines:
        for gpu in gpus:
            if (model, gpu) not in plans:
                others = ", ".join(f"SM={capability}" for name, capability in plans if name == model)
                rebuild = next(iter(plans.values()))["rebuild_command"]
                raise ServerError(
                    f"a GPU here has SM={gpu}, the plans of {model} are for {others}",
                    fix=f"add one and assemble again: {rebuild.rpartition('SM=')[0]}SM={gpu}",
                )
    return len(plans)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, and become the program that is given; 1 where a plan does not fit."""
    program = list(sys.argv[1:] if arguments is None else arguments)
    if not program:
        print("no program is given: tritonserver --model-repository=/models", file=sys.stderr)
        return 2

    def work() -> None:
        for argument in program:
            if argument.startswith(_REPOSITORY_FLAG):
                check_plans(Path(argument.removeprefix(_REPOSITORY_FLAG)))
        os.execvp(program[0], program)

    return exit_code_of(work)


if __name__ == "__main__":
    sys.exit(main())
