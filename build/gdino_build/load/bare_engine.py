"""What the server is compared with: its own engine without it, on the same pictures and labels."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from gdino_core import contract
from gdino_core.batching import NamedArrays
from gdino_core.image import preprocess_image
from gdino_core.openvino_engine import OpenVinoEngine, OpenVinoSettings
from gdino_core.prompt import encode_prompt
from gdino_core.settings import PreprocessSettings


class BareEngine:
    """The detector in a loop, on pictures that are prepared beforehand and features of a text that is encoded once.

    The server encodes a text once too: the response cache has it from then on.

    Args:
        engines: folder of the two engines.
        openvino: as the server compiles them.
        preprocess: as the server prepares pictures.
        pictures: encoded.
        labels: that all pictures are asked for.
        at_once: requests that Triton hands over together.
    """

    def __init__(
        self,
        engines: Path,
        openvino: OpenVinoSettings,
        preprocess: PreprocessSettings,
        pictures: Sequence[bytes],
        labels: Sequence[str],
        at_once: int,
    ) -> None:
        prompt = encode_prompt(tuple(labels), preprocess.text_buckets)
        text = {
            contract.INPUT_IDS: prompt.input_ids[None],
            contract.POSITION_IDS: prompt.position_ids[None],
            contract.PHRASE_IDS: prompt.phrase_ids[None],
        }
        encoder = OpenVinoEngine(engines / f"{contract.MODEL_TEXT_ENCODER}.xml", openvino)
        features = encoder.infer(text)[contract.TEXT_FEATURES]
        self._engine = OpenVinoEngine(engines / f"{contract.MODEL_DETECTOR}.xml", openvino)
        self._requests: list[NamedArrays] = []
        for picture in pictures:
            image = preprocess_image(picture, preprocess)
            every: dict[str, npt.NDArray[Any]] = {
                contract.PIXELS: image.pixels[None],
                contract.VALID_HW: image.valid_hw[None],
                contract.TEXT_FEATURES: features,
                **text,
            }
            self._requests.append({name: every[name] for name in self._engine.input_names})
        self._at_once = at_once
        self._next = 0

    def one_by_one(self, seconds: float) -> list[float]:
        """Run one picture after the other for so long, at least one; the seconds of each."""
        times: list[float] = []
        while not times or sum(times) < seconds:
            [request] = self._take(1)
            started = time.perf_counter()
            self._engine.infer(request)
            times.append(time.perf_counter() - started)
        return times

    def together(self, seconds: float) -> float:
        """Run as many pictures together as Triton hands over, for so long, at least once; pictures a second."""
        done, started = 0, time.perf_counter()
        while not done or time.perf_counter() - started < seconds:
            requests = self._take(self._at_once)
            for _, outcome in self._engine.infer_batches(self._engine.plan(requests), requests):
                if isinstance(outcome, Exception):
                    raise outcome
            done += len(requests)
        return done / (time.perf_counter() - started)

    def _take(self, count: int) -> list[NamedArrays]:
        taken = [self._requests[(self._next + index) % len(self._requests)] for index in range(count)]
        self._next += count
        return taken
