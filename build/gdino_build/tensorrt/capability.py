"""Choose the compute capability to compile for, and refuse one that cannot be compiled for before any work is done."""

import re
import subprocess

from gdino_build.tensorrt.flavour import FULL, RTX_REQUIREMENT, Flavour
from gdino_core.errors import ConfigError, ExportError

_WRITTEN = re.compile(r"(?:sm[_ ]?)?(\d{1,2})\.?(\d)", re.IGNORECASE)
_QUERY = ("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
_QUERY_SECONDS = 30


def parse_capability(text: str) -> int:
    """Read a compute capability: 89, 8.9, sm89 and SM_89 all are 89.

    Raises:
        ConfigError: it is none.
    """
    found = _WRITTEN.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"SM={text} is no compute capability", fix="write it such as SM=89 or SM=8.9")
    return int(found[1] + found[2])


def read_gpu_capability() -> int | None:
    """Ask nvidia-smi for the compute capability of the GPU at hand; None where there is no GPU.

    Raises:
        ConfigError: there are several GPUs of different capabilities.
    """
    try:
        answer = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_QUERY_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = sorted({parse_capability(line) for line in answer.stdout.splitlines() if _WRITTEN.fullmatch(line.strip())})
    if len(found) > 1:
        raise ConfigError(
            f"this machine has GPUs of the compute capabilities {_listed(found)}",
            fix=f"name the one to compile for, such as SM={found[0]}",
        )
    return found[0] if found else None


def choose_capability(given: str | None, gpu: int | None, flavour: Flavour) -> int:
    """The compute capability to compile for.

    Args:
        given: what the user wrote, such as "89"; None takes the GPU's.
        gpu: capability of the GPU at hand, see read_gpu_capability; None without one.
        flavour: that compiles.

    Raises:
        ConfigError: nothing is given and there is no GPU, or the flavour cannot compile for it here.
        ExportError: the flavour is the full one and there is no GPU to compile on.
    """
    wanted = parse_capability(given) if given else gpu
    if flavour.name == FULL:
        if gpu is None:
            raise ExportError(
                f"{flavour} compiles on the GPU that the plan is for, and nvidia-smi finds none here",
                fix=f"build where the plan is served, or ahead of time: pip install {RTX_REQUIREMENT}, and choose it",
            )
        known: tuple[int, ...] = (gpu,)
    else:
        known = flavour.compiled_ahead_of_time()
    if wanted is None:
        raise ConfigError(
            "no compute capability is named, and nvidia-smi finds no GPU to take it from",
            fix=f"name one of SM={_listed(known)}",
        )
    if wanted not in known:
        raise ConfigError(f"{flavour} cannot compile for SM={wanted} here", fix=f"choose one of SM={_listed(known)}")
    return wanted


def _listed(capabilities: tuple[int, ...] | list[int]) -> str:
    return ", ".join(map(str, capabilities))
