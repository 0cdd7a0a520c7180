"""Ask nvidia-smi what the GPU is and how much of its memory is taken."""

import os
import subprocess
from dataclasses import dataclass

from gdino_build.tensorrt.capability import parse_capability
from gdino_core.errors import ConfigError

_FIELDS = "name,driver_version,compute_cap,memory.total,memory.used"
_SECONDS = 30
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU at one moment.

    Attributes:
        name: as its driver has it.
        driver: version of the driver.
        capability: compute capability, such as 89.
        memory_bytes: in all.
        used_bytes: taken by all processes together.
    """

    name: str
    driver: str
    capability: int
    memory_bytes: int
    used_bytes: int


def read_gpu() -> Gpu:
    """The first GPU that CUDA_VISIBLE_DEVICES names, otherwise the first of the machine.

    Raises:
        ConfigError: there is none.
    """
    number = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    command = ["nvidia-smi", "-i", number, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except FileNotFoundError as error:
        raise _no_gpu("nvidia-smi is not installed") from error
    except subprocess.CalledProcessError as error:
        raise _no_gpu(f"nvidia-smi says: {(error.stderr or error.stdout).strip()}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _no_gpu(f"nvidia-smi fails: {error}") from error
    return parse_gpu(answer.stdout)


def parse_gpu(line: str) -> Gpu:
    """Read a line such as "NVIDIA L4, 550.54.15, 8.9, 23034, 412"; memory is in MiB.

    Raises:
        ConfigError: it is another one, as that of a GPU divided by MIG, whose memory nvidia-smi does not tell.
    """
    try:
        name, driver, capability, total, used = (part.strip() for part in line.strip().rsplit(",", 4))
        return Gpu(
            name=name,
            driver=driver,
            capability=parse_capability(capability),
            memory_bytes=int(total) * _MIB,
            used_bytes=int(used) * _MIB,
        )
    except ValueError as error:
        raise _no_gpu(f"nvidia-smi answers {line.strip()!r}") from error


def _no_gpu(why: str) -> ConfigError:
    return ConfigError(f"no NVIDIA GPU can be used here: {why}", fix="run it on a machine with an NVIDIA GPU")
