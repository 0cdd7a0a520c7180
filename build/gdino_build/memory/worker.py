"""Run a detector on pictures of one bucket after the other, in growing batches, and tell the peak of each.

A program of its own, because memory that was once taken is seldom given back: prints a JSON object a line.
"""

import argparse
import gc
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gdino_build.machine import peak_bytes
from gdino_core import contract
from gdino_core.batching import NamedArrays
from gdino_core.openvino_engine import OpenVinoEngine, OpenVinoSettings

_CLEAR_PEAK = "5"  # of /proc/self/clear_refs: the peak starts again from what is held now


def main() -> None:
    """Load the engine, then run every bucket at every batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=Path, required=True, help="of the detector")
    parser.add_argument("--settings", type=json.loads, required=True, help="OpenVinoSettings' parameters, as JSON")
    parser.add_argument("--buckets", type=json.loads, required=True, help="[[height, width], ...]")
    parser.add_argument("--batches", type=json.loads, required=True, help="[1, 2, 4]: pictures in one inference")
    parser.add_argument("--tokens", type=int, required=True, help="of the prompts")
    parser.add_argument("--text-dim", type=int, required=True, help="of TEXT_FEATURES")
    arguments = parser.parse_args()
    settings = OpenVinoSettings.from_parameters(arguments.settings)
    engine = OpenVinoEngine(arguments.engine, settings)
    for bucket in arguments.buckets:
        for batch in arguments.batches:
            # As many batches as run side by side: what a full server does.
            requests = [
                _request(tuple(bucket), batch, arguments.tokens, arguments.text_dim)
                for _ in range(settings.streams_here())
            ]
            gc.collect()
            Path("/proc/self/clear_refs").write_text(_CLEAR_PEAK, encoding="ascii")
            _run(engine, requests)
            print(json.dumps({"bucket": bucket, "batch": batch, "peak_bytes": peak_bytes()}), flush=True)


def _run(engine: OpenVinoEngine, requests: Sequence[NamedArrays]) -> None:
    for _, outcome in engine.infer_batches(engine.plan(requests), requests):
        if isinstance(outcome, Exception):
            raise outcome


def _request(bucket: tuple[int, int], batch: int, tokens: int, text_dim: int) -> NamedArrays:
    rng = np.random.default_rng(0)
    return {
        contract.PIXELS: rng.integers(0, 256, (batch, 3, *bucket), dtype=np.uint8),
        contract.VALID_HW: np.tile(np.array(bucket, np.int32), (batch, 1)),
        contract.TEXT_FEATURES: rng.standard_normal((batch, tokens, text_dim), dtype=np.float32),
        contract.POSITION_IDS: np.zeros((batch, tokens), np.int32),
        contract.PHRASE_IDS: np.tile(np.arange(tokens, dtype=np.int32) // 4, (batch, 1)),
    }


if __name__ == "__main__":
    main()
