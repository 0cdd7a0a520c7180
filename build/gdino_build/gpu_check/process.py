"""Keep a runner's process, and ask it."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gdino_build.parity import Arrays
from gdino_core.errors import ServerError


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A runner that can be started here.

    Attributes:
        runner: such as "TensorRT".
        precision: "fp32", "fp16", "bf16" or "int8".
        command: of its process.
        environment: variables added to ours.
    """

    runner: str
    precision: str
    command: Sequence[str]
    environment: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.runner} {self.precision}"


class RunnerProcess:
    """A runner that is loaded and waits; see `worker`.

    Attributes:
        pid: of its process.
        version: of what runs it.
        can_force: whether it takes proposals.
    """

    def __init__(self, contender: Contender, process: subprocess.Popen[str], log: Path) -> None:
        self._contender, self._process, self._log = contender, process, log
        self.pid = process.pid
        ready = self._read()
        self.version: str = ready["version"]
        self.can_force: bool = ready["can_force"]

    def answer(self, inputs: Arrays, folder: Path) -> Arrays:
        """Run once and fetch the outputs; they travel through files in a folder.

        Raises:
            ServerError: it failed, or its process ended.
        """
        given, told = folder / "inputs.npz", folder / "outputs.npz"
        np.savez(given, **inputs)
        self._ask(given, passes=0, outputs=str(told), release=False)
        with np.load(told, allow_pickle=False) as arrays:
            return dict(arrays)

    def seconds(self, inputs: Path, passes: int, *, release: bool) -> list[float]:
        """Time passes over the inputs of an .npz file, after one that does not count.

        Args:
            inputs: the file.
            passes: that count.
            release: whether memory goes back to the device afterwards.

        Raises:
            ServerError: it failed, or its process ended.
        """
        found: list[float] = self._ask(inputs, passes=passes, outputs=None, release=release)["seconds"]
        return found

    def _ask(self, inputs: Path, *, passes: int, outputs: str | None, release: bool) -> Mapping[str, Any]:
        assert self._process.stdin is not None
        request = {"inputs": str(inputs.resolve()), "passes": passes, "outputs": outputs, "release": release}
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except BrokenPipeError as error:
            raise self._failed(f"its process ended with exit code {self._process.wait()}") from error
        return self._read()

    def _read(self) -> Mapping[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._failed(f"its process ended with exit code {self._process.wait()}")
        content: Mapping[str, Any] = json.loads(line)
        if "error" in content:
            raise self._failed(content["error"])
        return content

    def _failed(self, why: str) -> ServerError:
        return ServerError(f"{self._contender}: {why}", fix=f"what it printed is in {self._log}")


@contextmanager
def running(contender: Contender, log: Path) -> Iterator[RunnerProcess]:
    """Keep a runner loaded for as long as a `with` block lasts.

    Args:
        contender: what to start.
        log: gets what it prints, after what is there.

    Raises:
        ServerError: it cannot load.
    """
    with (
        log.open("a", encoding="utf-8") as file,
        subprocess.Popen(
            list(contender.command),
            env={**os.environ, **contender.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        ) as process,
    ):
        try:
            yield RunnerProcess(contender, process, log)
        finally:
            process.kill()  # it has nothing to put in order
