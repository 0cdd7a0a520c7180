"""A client that behaves, beside one that does not: it must not notice."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from gdino_client import Client, Credentials

PICTURE = Path("demo/samples/1-landscape.jpg")
LABELS = ["yellow star", "purple circle"]
_PAUSE_S = 0.1  # between requests: a client that behaves keeps to a gateway's rate, however fast the server is


@contextlib.contextmanager
def others_unharmed(url: str, credentials: Credentials) -> Iterator[None]:
    """Ask over and over while a `with` block lasts, over an old connection and over new ones; each must be answered."""
    answered, failures, done = [], [], threading.Event()

    def ask() -> None:
        with Client(url, credentials=credentials) as old:
            while True:  # at least once
                try:
                    with Client(url, credentials=credentials) as new:
                        answered.extend({found.label for found in one.detect(PICTURE, LABELS)} for one in (old, new))
                except Exception as error:
                    failures.append(error)
                if failures or done.wait(_PAUSE_S):
                    return

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert not failures, failures
    assert answered
    assert all(labels == set(LABELS) for labels in answered)
