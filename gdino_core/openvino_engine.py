"""Run an OpenVINO engine, several requests in one batch.

The only module here that needs openvino, which it imports when an engine is loaded. It is in this package so that
the server and `verify` compile an engine with the same settings.
"""

import os
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from gdino_core.batching import Answers, Batch, NamedArrays, gather, plan_batches
from gdino_core.errors import ConfigError, ServerError
from gdino_core.processors import count_processors

ENGINE_FILE_NAME: Final = "model.xml"  # beside model.py; its weights are in model.bin
OPERATOR_SUFFIX: Final = ".operator.so"  # of its compiled operator beside it; Python would take model.so for model.py
INFERENCE_PRECISIONS: Final = ("f32", "bf16", "f16")
_KEPT_OPERATORS: Final = 2000
_THREADS = "openvino_threads"
_INFERENCE_PRECISION = "openvino_inference_precision"
_STREAMS = "openvino_streams"
_MAX_BATCH_SIZE = "openvino_max_batch_size"


@dataclass(frozen=True, kw_only=True)
class OpenVinoSettings:
    """How an engine is compiled for this machine.

    Attributes:
        threads: of one inference; 0 leaves the choice to OpenVINO, within the time that the container gets.
        inference_precision: what FP32 operators compute in. OpenVINO's own choice is bf16 on processors that have
            it, without a word, so it is always said.
        streams: batches that run side by side when several wait, each on its share of the threads; 0: one a thread. It
            pays for small models, whose operators are too short to be shared. A single batch has all threads.
        max_batch_size: most pictures or prompts in one inference.

    Raises:
        ConfigError: a value is out of range.
    """

    threads: int = 0
    inference_precision: str = "f32"
    streams: int = 1
    max_batch_size: int = 8

    def __post_init__(self) -> None:
        """Check every value."""
        if self.threads < 0:
            raise ConfigError(f"{_THREADS} is {self.threads}", fix="give 0 (OpenVINO chooses) or more")
        if self.inference_precision not in INFERENCE_PRECISIONS:
            raise ConfigError(
                f"{_INFERENCE_PRECISION} is {self.inference_precision!r}",
                fix=f"choose one of {', '.join(INFERENCE_PRECISIONS)}",
            )
        if self.streams < 0:
            raise ConfigError(f"{_STREAMS} is {self.streams}", fix="give 0 (one a thread) or more")
        if self.max_batch_size < 1:
            raise ConfigError(f"{_MAX_BATCH_SIZE} is {self.max_batch_size}", fix="give 1 or more")

    def to_parameters(self) -> dict[str, str]:
        """Return the settings as names and strings, for the `parameters` of config.pbtxt."""
        return {
            _THREADS: str(self.threads),
            _INFERENCE_PRECISION: self.inference_precision,
            _STREAMS: str(self.streams),
            _MAX_BATCH_SIZE: str(self.max_batch_size),
        }

    def streams_here(self) -> int:
        """Batches that run side by side on this machine."""
        return self.streams or self.threads or count_processors()

    def to_properties(self, streams: int = 1) -> dict[str, str | int]:
        """Return the settings as OpenVINO's compile_model takes them, for so many batches side by side."""
        properties: dict[str, str | int] = {
            "INFERENCE_PRECISION_HINT": self.inference_precision,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": streams,
            # Prepared operators that are kept of each kind, for the sizes of some twenty batches: one that is prepared
            # anew costs more than it computes. Sizes, batches and prompts make so many combinations that memory would
            # grow for hours, at OpenVINO's own 5,000.
            "CPU_RUNTIME_CACHE_CAPACITY": _KEPT_OPERATORS,
        }
        # OpenVINO counts the processors that it may run on, not the share of their time that a container gets.
        processors = count_processors()
        threads = self.threads or (processors if processors < len(os.sched_getaffinity(0)) else 0)
        return properties | ({"INFERENCE_NUM_THREADS": threads} if threads else {})

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Self:
        """Read the settings back from the `parameters` of config.pbtxt.

        Raises:
            ConfigError: a parameter is missing or has a value that is refused.
        """
        try:
            return cls(
                threads=int(parameters[_THREADS]),
                inference_precision=parameters[_INFERENCE_PRECISION],
                streams=int(parameters[_STREAMS]),
                max_batch_size=int(parameters[_MAX_BATCH_SIZE]),
            )
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"config.pbtxt lacks {_THREADS}, {_STREAMS} or {_MAX_BATCH_SIZE} (numbers) or "
                f"{_INFERENCE_PRECISION}: {error}",
                fix="assemble the repository again",
            ) from error


class OpenVinoEngine:
    """A compiled engine; one call at a time.

    Attributes:
        input_names: as the graph has them.
        output_names: as the graph has them.
    """

    def __init__(self, path: Path, settings: OpenVinoSettings) -> None:
        """Read and compile an engine for this machine's CPU.

        Args:
            path: an OpenVINO .xml with its .bin beside it, or an ONNX file.
            settings: how to compile it.

        Raises:
            ServerError: OpenVINO is not installed, there is no such file, or it cannot be compiled.
        """
        try:
            import openvino
        except ImportError as error:
            raise ServerError(
                "openvino is not installed where the server looks for packages",
                fix="install the server extra: pip install '.[server]' in a checkout",
            ) from error
        self._settings, self._lanes = settings, settings.streams_here()
        if not path.is_file():
            raise ServerError(f"there is no engine {path}", fix="build the engine, and assemble")
        try:
            # Makes a table of OpenVINO's that is else made at its first use. Where two threads use it first, one
            # waits for the table and holds Python's lock, which the other needs to make it.
            openvino.Type.f32.to_dtype()
            self._core = openvino_core(path)
            self._model = self._core.read_model(path)
            # Compiling may give a tensor further names (of a cast that it removed): names are taken before, and
            # tensors go in and come out by their order, which stays.
            self.input_names = tuple(port.any_name for port in self._model.inputs)
            self.output_names = tuple(port.any_name for port in self._model.outputs)
            self._compile()
        except RuntimeError as error:
            # The last line is the reason, those before it are places in OpenVINO's source.
            reason = str(error).strip().rpartition("\n")[2]
            raise ServerError(
                f"OpenVINO cannot load {path}: {reason}", fix="build the engine again, and assemble"
            ) from error

    def _compile(self) -> None:
        def compile_for(streams: int) -> Any:
            return self._core.compile_model(self._model, "CPU", self._settings.to_properties(streams))

        self._request = compile_for(1).create_infer_request()
        if self._lanes > 1:
            compiled = compile_for(self._lanes)
            self._streams = _Streams([compiled.create_infer_request() for _ in range(self._lanes)])

    def infer(self, inputs: NamedArrays) -> NamedArrays:
        """Run one batch.

        Args:
            inputs: arrays by the names in `input_names`, all with the same batch axis first.

        Returns:
            Arrays of their own memory by the names in `output_names`.
        """
        return self._run(self._request, inputs)

    def plan(self, requests: Sequence[NamedArrays]) -> list[Batch]:
        """Choose which rows of requests run together."""
        return plan_batches(requests, self._settings.max_batch_size, self._lanes)

    def infer_batches(
        self, batches: Sequence[Batch], requests: Sequence[NamedArrays]
    ) -> Iterator[tuple[int, NamedArrays | Exception]]:
        """Run requests in batches.

        Args:
            batches: what runs together, from `plan`.
            requests: inputs of each, as `infer` takes them.

        Yields:
            The place of each request and its outputs, or the error that its batch met, as soon as they are there.
        """
        answers, failed = Answers(batches), list[int]()
        inputs = [gather(batch, requests) for batch in batches]
        for place, outcome in self._outcomes(inputs):
            if isinstance(outcome, Exception):
                failed.append(place)
            else:
                yield from answers.add(batches[place], outcome)
        lost = set[int]()
        for place in failed:
            # An inference that fails in its midst leaves sizes behind at which the next one fails: whose fault it was
            # shows when each runs on an engine that none has failed on.
            self._compile()
            [(_, outcome)] = self._outcomes([inputs[place]])
            if not isinstance(outcome, Exception):
                yield from answers.add(batches[place], outcome)
                continue
            for request in {rows.request for rows in batches[place]} - lost:
                lost.add(request)
                yield request, outcome
        if lost:
            self._compile()

    def _outcomes(self, batches: Sequence[NamedArrays]) -> Iterator[tuple[int, NamedArrays | Exception]]:
        """Run batches: the place of each, and its outputs or its error."""
        if self._lanes > 1 and len(batches) > 1:
            yield from self._streams.outcomes(batches, self._run)
            return
        for place, batch in enumerate(batches):
            try:
                yield place, self._run(self._request, batch)
            except Exception as error:
                yield place, error

    def _run(self, request: Any, inputs: NamedArrays) -> NamedArrays:
        results = request.infer([inputs[name] for name in self.input_names], share_inputs=True)
        return {name: results[index] for index, name in enumerate(self.output_names)}


def openvino_core(engine_path: Path) -> Any:
    """An openvino.Core that can read this engine: it knows the operator that lies beside it.

    Raises:
        RuntimeError: the operator was compiled for another OpenVINO.
    """
    import openvino

    core = openvino.Core()
    if (library := engine_path.with_suffix(OPERATOR_SUFFIX)).is_file():
        core.add_extension(library)
    return core


class _Streams:
    """Runs batches side by side: as many as there are requests, one of them a thread."""

    def __init__(self, requests: Sequence[Any]) -> None:
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for request in requests:
            self._idle.put(request)
        self._threads = ThreadPoolExecutor(len(requests), "openvino")

    def outcomes(
        self, batches: Sequence[NamedArrays], run: Callable[[Any, NamedArrays], NamedArrays]
    ) -> Iterator[tuple[int, NamedArrays | Exception]]:
        """The place of each batch, and its outputs or its error, as soon as they are there."""

        def run_on_idle(batch: NamedArrays) -> NamedArrays:
            request = self._idle.get()
            try:
                return run(request, batch)
            finally:
                self._idle.put(request)

        places = {self._threads.submit(run_on_idle, batch): place for place, batch in enumerate(batches)}
        for future in as_completed(places):
            error = future.exception()
            yield places[future], error if isinstance(error, Exception) else future.result()
