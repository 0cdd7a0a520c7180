"""What Linux tells of this machine and of the memory that processes took."""

import contextlib
import os
from pathlib import Path

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
_CPU_FIELDS = slice(11, 13)  # user and system time
_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of the container; "max" where there is none
_SESSION_FIELD = 3  # of what follows the name in /proc/PID/stat: state, parent, group, session


def describe_hardware() -> str:
    """Processor, cores that this process may use, and the instructions that low precisions use; no name of a host."""
    fields = _processor()
    flags = cpu_flags()
    known = ", ".join(flag for flag in _FLAGS if flag in flags)
    return f"{fields.get('model name', 'unknown CPU')}, {len(os.sched_getaffinity(0))} cores, {known or 'no AVX2'}"


def cpu_flags() -> list[str]:
    """Instructions that the processor has, by their names in Linux; none where it is not Linux."""
    return _processor().get("flags", "").split()


def memory_limit_bytes(limit_file: Path = _MEMORY_LIMIT, meminfo: Path = Path("/proc/meminfo")) -> int:
    """Memory that this process may use: of its container, or of the machine if that has less."""
    total = next(
        int(line.split()[1]) * 1024
        for line in meminfo.read_text(encoding="utf-8").splitlines()
        if line.startswith("MemTotal:")
    )
    try:
        return min(total, int(limit_file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return total


def peak_bytes(pid: int | str = "self") -> int:
    """Most memory that a process ever held (VmHWM); 0 where there is no such process."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def session_peak_bytes(leader: int) -> int:
    """Sum of `peak_bytes` over all processes of a session, such as a Triton server and those of its Python models.

    What they share, libraries and shared memory, counts in each of them: the sum is an upper bound.

    Args:
        leader: process id of the session's first process.
    """
    return sum(peak_bytes(pid) for pid in _session_members(leader))


def session_processes(leader: int) -> dict[int, str]:
    """Process ids of a session, each with its command line."""
    found = {}
    for pid in _session_members(leader):
        with contextlib.suppress(OSError):
            found[pid] = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").replace("\0", " ")
    return found


def session_cpu_seconds(leader: int) -> float:
    """Processor time that the processes of a session have used so far."""
    ticks = 0
    for pid in _session_members(leader):
        with contextlib.suppress(OSError):
            ticks += sum(map(int, _stat_fields(Path(f"/proc/{pid}"))[_CPU_FIELDS]))
    return ticks / os.sysconf("SC_CLK_TCK")


def session_bytes(leader: int) -> int:
    """Memory that the processes of a session hold now, what they share counted once (PSS)."""
    total = 0
    for pid in _session_members(leader):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def _processor() -> dict[str, str]:
    """What /proc/cpuinfo tells of the last processor; they are equal."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _stat_fields(process: Path) -> list[str]:
    # The name, in brackets, may hold anything, brackets and spaces too.
    return (process / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _session_members(leader: int) -> list[int]:
    members = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # any may end while we look
            if int(_stat_fields(folder)[_SESSION_FIELD]) == leader:
                members.append(int(folder.name))
    return members
