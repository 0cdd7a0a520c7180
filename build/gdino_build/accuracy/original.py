"""Run the original GroundingDINO in PyTorch on a data set, in the environment of its own that it needs."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gdino_build.accuracy.dataset import CocoDataset
from gdino_build.accuracy.scoring import Accuracy, score
from gdino_core.errors import ConfigError, ServerError

THROUGH = "PyTorch, the original package"
_MODULE = "tests.reference.evaluate_original"
_STOP_TIMEOUT_S = 60


@dataclass(frozen=True, kw_only=True)
class Original:
    """Where the original is, and what it is run with.

    Attributes:
        root: the repository, whose tests/reference runs it.
        environment: its virtual environment, made by tests/reference/make_environment.sh.
        model: "demo", "swint" or "swinb".
        weights: .safetensors with the official names.
        images: folder that the pictures' file names start from.
        out: folder for its answers.
    """

    root: Path
    environment: Path
    model: str
    weights: Path
    images: Path
    out: Path

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return self.environment / "bin" / "python"

    def check_environment(self) -> None:
        """Refuse an environment that is not there.

        Raises:
            ConfigError: it has no interpreter.
        """
        if not self.python.is_file():
            raise ConfigError(
                f"the original's environment {self.environment} is not there",
                fix="make it with tests/reference/make_environment.sh, or leave the original out: --no-original",
            )


class OriginalProcess:
    """The original, loaded and waiting: calling it with a picture's file waits for its answer."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._read_line()  # it is loaded

    def __call__(self, picture: Path) -> None:
        """Let it detect all labels in a picture.

        Raises:
            ServerError: it has ended.
        """
        self._write_line(str(picture.resolve()))
        self._read_line()

    def peak_bytes(self) -> int:
        """Most memory that the process held, up to now."""
        self._write_line("")
        return int(self._read_line())

    def _write_line(self, line: str) -> None:
        assert self._process.stdin is not None  # original_running() gave it a pipe
        try:
            print(line, file=self._process.stdin, flush=True)
        except BrokenPipeError as error:
            raise _ended(self._process) from error

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise _ended(self._process)
        return line


@contextmanager
def original_running(original: Original, dataset: CocoDataset) -> Iterator[OriginalProcess]:
    """Keep the original loaded for as long as a `with` block lasts.

    Raises:
        ConfigError: its environment is not there.
        ServerError: it ended with an error, which it has printed.
    """
    with subprocess.Popen(
        _command(original, dataset, "--timed"),
        cwd=original.root,
        env=_variables(original),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield OriginalProcess(process)
        finally:
            process.kill()  # it has nothing to put in order


@dataclass(frozen=True, kw_only=True)
class OriginalAccuracy:
    """How accurate the original is.

    Attributes:
        accuracy: of its answers as they are; its boxes may leave the picture.
        clipped: of the same with its boxes clipped to the picture, as those of the server are.
        made_with: the packages that decide its answers.
        parameter_bytes: of its weights in FP32.
    """

    accuracy: Accuracy
    clipped: Accuracy
    made_with: str
    parameter_bytes: int


def evaluate_original(original: Original, dataset: CocoDataset) -> OriginalAccuracy:
    """Let the original detect all labels in every picture, and score its answers; it resumes where it was broken off.

    Raises:
        ConfigError: its environment is not there.
        ServerError: it ended with an error, which it has printed.
    """
    finished = subprocess.run(_command(original, dataset), cwd=original.root, env=_variables(original), check=False)
    if finished.returncode:
        raise _failed(finished.returncode)
    content = json.loads((original.out / "detections.json").read_text(encoding="utf-8"))
    return OriginalAccuracy(
        accuracy=score(dataset.truth, content["results"]),
        clipped=score(dataset.truth, clip_results(content["results"], dataset)),
        made_with=content["made_with"],
        parameter_bytes=content["parameter_bytes"],
    )


def clip_results(results: Sequence[Mapping[str, Any]], dataset: CocoDataset) -> list[dict[str, Any]]:
    """Cut off what of the boxes of COCO's results lies outside of their pictures."""
    sizes = {picture.image_id: picture.image_hw for picture in dataset.pictures}
    clipped = []
    for result in results:
        height, width = sizes[result["image_id"]]
        x, y, box_width, box_height = result["bbox"]
        x0, x1 = (min(max(side, 0.0), width) for side in (x, x + box_width))
        y0, y1 = (min(max(side, 0.0), height) for side in (y, y + box_height))
        clipped.append({**result, "bbox": [x0, y0, x1 - x0, y1 - y0]})
    return clipped


def _command(original: Original, dataset: CocoDataset, *flags: str) -> Sequence[str]:
    original.check_environment()
    return [
        str(original.python.absolute()),
        *("-m", _MODULE, "--model", original.model, "--weights", str(original.weights.resolve())),
        *("--coco", str(dataset.file.resolve()), "--images", str(original.images.resolve())),
        *("--limit", str(len(dataset.pictures)), "--out", str(original.out.resolve())),
        *flags,
    ]


def _variables(original: Original) -> dict[str, str]:
    # Threads that wait would otherwise spin: beside other work on the machine that made it ten times as slow.
    return {
        **os.environ,
        "PYTHONPATH": f"{original.root / 'build'}{os.pathsep}{original.root}",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def _ended(process: subprocess.Popen[str]) -> ServerError:
    return _failed(process.wait(_STOP_TIMEOUT_S))


def _failed(code: int) -> ServerError:
    return ServerError(
        f"the original ended with exit code {code}",
        fix="what it printed above says why; tests/reference/make_environment.sh makes its environment again",
    )
