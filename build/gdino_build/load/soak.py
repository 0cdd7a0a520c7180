"""Hold twice the load that a server can answer, and note its memory and its processes meanwhile."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gdino_build.assemble import STEPS
from gdino_build.load.mixed_load import Load, Mix, hold_load, measure_capacity
from gdino_build.load.soak_verdict import SoakRun
from gdino_build.machine import session_bytes, session_processes
from gdino_build.serve import RunningServer
from gdino_core.errors import ServerError

_PROBE_S = 20.0
_SAMPLES_INTERVAL_S = 5.0
_LEAST_SAMPLES = 20


@dataclass(frozen=True, kw_only=True)
class SoakPlan:
    """How to load a server.

    Attributes:
        seconds: how long.
        queue_size: requests that wait before a step; more are rejected.
        at_once: pictures that are handed to the engine together.
        timeout_s: that a request may wait before a step; None: twice what a full queue takes.
    """

    seconds: float
    queue_size: int
    at_once: int
    timeout_s: float | None = None


def run_soak(server: RunningServer, mix: Mix, plan: SoakPlan, progress: Callable[[str, float], None]) -> SoakRun:
    """Measure what a server answers, and send it twice as much.

    Args:
        server: that is ready.
        mix: what to send.
        plan: how.
        progress: is told what happens, and the seconds that it has gone on.

    Raises:
        ServerError: it answers nothing.
    """
    progress("measuring what it can answer", 0.0)
    clients = max(1, plan.queue_size // 2)  # nothing is rejected yet
    capacity = asyncio.run(measure_capacity(server.grpc_url, mix, clients, min(_PROBE_S, plan.seconds)))
    if not capacity:
        raise ServerError("the server answered nothing", fix=f"its log says why: {server.log_file}")
    timeout_s = plan.timeout_s or 2 * plan.queue_size / capacity
    load = Load(per_s=2 * capacity, seconds=plan.seconds, timeout_s=timeout_s)
    before = session_processes(server.pid)
    text = f"{load.per_s:.3g} requests/s"
    with _memory_sampled(server.pid, plan.seconds, lambda held_s: progress(text, held_s)) as memory_bytes:
        outcomes = asyncio.run(hold_load(server.grpc_url, mix, load))
    return SoakRun(
        capacity_per_s=capacity,
        load=load,
        outcomes=outcomes,
        memory_bytes=memory_bytes,
        processes_before=before,
        processes_after=session_processes(server.pid),
        # Each step may make a request wait so long; then come the batches that are handed over together with it.
        latest_s=len(STEPS) * timeout_s + 2 * plan.at_once / capacity,
    )


@contextlib.contextmanager
def _memory_sampled(leader: int, seconds: float, progress: Callable[[float], None]) -> Iterator[list[int]]:
    """Note the memory of a session at equal intervals while a `with` block lasts."""
    interval_s = min(_SAMPLES_INTERVAL_S, seconds / _LEAST_SAMPLES)
    samples: list[int] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(interval_s):
            samples.append(session_bytes(leader))
            progress(min(interval_s * len(samples), seconds))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()
