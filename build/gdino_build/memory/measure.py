"""Measure what the detector and the rest of a server take."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gdino_build.engine import engine_interface
from gdino_build.machine import peak_bytes, session_processes
from gdino_build.memory.cost import Peak, Size
from gdino_build.serve import running_server
from gdino_core import contract
from gdino_core.errors import ServerError
from gdino_core.openvino_engine import OpenVinoSettings


def batches_to_measure(max_batch_size: int) -> list[int]:
    """1, 2, 4 and so on, and the largest; two at least, for a line."""
    doubled = [1 << power for power in range(max_batch_size.bit_length()) if 1 << power < max_batch_size]
    return [*doubled, max_batch_size] if max_batch_size > 1 else [1, 2]


def measure_detector(
    engine: Path,
    openvino: OpenVinoSettings,
    buckets: Sequence[Size],
    batches: Sequence[int],
    tokens: int,
    progress: Callable[[Peak], None],
) -> list[Peak]:
    """Run a detector in a process of its own and note its peaks.

    Args:
        engine: of the detector.
        openvino: as the server compiles it.
        buckets: to run, in this order; what the engine keeps of one counts in the next.
        batches: pictures in one inference, for each bucket in this order.
        tokens: of the prompts.
        progress: is called with each peak.

    Raises:
        ServerError: the process ended, most likely because memory did.
    """
    text_dim = engine_interface(engine).inputs[contract.TEXT_FEATURES].dims[-1]
    command = [
        *(sys.executable, "-m", "gdino_build.memory.worker", "--engine", str(engine)),
        *("--settings", json.dumps(openvino.to_parameters()), "--buckets", json.dumps(buckets)),
        *("--batches", json.dumps(batches), "--tokens", str(tokens), "--text-dim", str(text_dim)),
    ]
    peaks = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            found = json.loads(line)
            height, width = found["bucket"]
            peaks.append(Peak(bucket=(height, width), batch=found["batch"], peak_bytes=found["peak_bytes"]))
            progress(peaks[-1])
    if process.returncode:
        done = f"after {peaks[-1].bucket}, batches of {peaks[-1].batch}" if peaks else "before the first batch"
        raise ServerError(
            f"the detector ended with exit code {process.returncode} {done}",
            fix="it may have run out of memory: lower [engine] max_batch_size and measure again",
        )
    return peaks


def measure_rest(repository: Path, log_file: Path, cache_bytes: int) -> int:
    """Memory of a server that is ready, without its detector's process, and with a full cache."""
    with running_server(repository, log_file=log_file, cache_bytes=cache_bytes) as server:
        others = [
            pid
            for pid, command in session_processes(server.pid).items()
            if f"/{contract.MODEL_DETECTOR}/" not in command
        ]
        return sum(peak_bytes(pid) for pid in others) + cache_bytes
