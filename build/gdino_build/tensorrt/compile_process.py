"""Compile one plan in a process of its own: it can be killed at any time, and its peak memory is the plan's."""

import pickle
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from gdino_build.launch_with_parent import launcher
from gdino_build.machine import peak_bytes
from gdino_build.tensorrt.compilation import Compiled, CompileJob, compile_plan
from gdino_core.errors import ExportError, GdinoError


def compile_in_process(job: CompileJob) -> tuple[Compiled, int]:
    """Compile a plan, and measure the memory that it takes.

    The process is killed when the caller is interrupted, and by the kernel when the caller dies.

    Returns:
        What the compiler knows of the plan, and the peak memory of its process in bytes.

    Raises:
        GdinoError: what `compile_plan` raises.
        ExportError: the process was killed, or crashed.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer_path = Path(folder) / "answer"
        # A session of its own: Ctrl-C in a terminal reaches the caller alone, who then kills it.
        process = subprocess.Popen(
            [*launcher(), sys.executable, "-m", __name__, str(answer_path)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            process.communicate(pickle.dumps(job))
        finally:
            process.kill()
            process.wait()
        if not answer_path.is_file():
            raise _ended_early(job, process.returncode)
        answer = pickle.loads(answer_path.read_bytes())
    if isinstance(answer, GdinoError):
        raise answer
    compiled, peak_memory_bytes = answer
    return compiled, peak_memory_bytes


def main() -> None:
    """Read the job from the standard input, and write the answer, or our error, to the file that is named."""
    job = pickle.load(sys.stdin.buffer)
    answer: object
    try:
        # Not getrusage: the kernel passes on the peak of the process that started this one.
        answer = compile_plan(job), peak_bytes()
    except GdinoError as error:
        answer = error
    answer_path = Path(sys.argv[1])
    partial = answer_path.with_suffix(".partial")
    partial.write_bytes(pickle.dumps(answer))
    partial.rename(answer_path)


def _ended_early(job: CompileJob, returncode: int) -> ExportError:
    ended = f"ended with exit code {returncode}"
    if returncode < 0:
        ended = f"was killed by {signal.Signals(-returncode).name}"
    return ExportError(
        f"the process that compiled {job.onnx_path} {ended}",
        fix="if the machine ran out of memory, give it more, or compile fewer buckets; what TensorRT said last stands "
        f"in {job.log_path.name}",
    )


if __name__ == "__main__":
    main()
