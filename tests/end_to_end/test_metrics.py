"""What an operator reads from the metrics: how large the batches are that the engine runs."""

import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gdino_build.serve import RunningServer
from gdino_client import Client

pytestmark = pytest.mark.server

PICTURES = [Path("demo/samples/1-landscape.jpg"), Path("demo/samples/3-portrait.webp")]


def engine_counts(server: RunningServer) -> tuple[float, float]:
    """Inferences of the detector so far, and the pictures in them."""
    url = f"http://127.0.0.1:{server.ports.metrics}/metrics"
    with urllib.request.urlopen(url, timeout=10) as response:
        lines = response.read().decode().splitlines()
    found = dict(line.rsplit(" ", 1) for line in lines if 'model="detector"' in line and line.startswith("gdino_"))
    return (
        float(found['gdino_engine_inferences{model="detector"}']),
        float(found['gdino_engine_rows{model="detector"}']),
    )


def test_the_mean_batch_of_the_engine_is_in_the_metrics(server: RunningServer, client: Client) -> None:
    inferences, rows = engine_counts(server)
    client.detect(PICTURES[0], ["red circle"])
    assert engine_counts(server) == (inferences + 1, rows + 1)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda picture: client.detect(picture, ["red circle"]), PICTURES * 16))
    more, all_rows = engine_counts(server)
    assert all_rows == rows + 33
    assert more < inferences + 33  # some pictures shared an inference
