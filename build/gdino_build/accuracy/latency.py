"""Time single requests of one contender or several, interleaved: what else the machine does meets all of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

from tqdm import tqdm

Contender = Callable[[Path], object]  # is asked about a picture's file, and returns when it has the answer


def interleaved_latency_ms(
    contenders: Mapping[str, Contender], pictures: Sequence[Path], *, rounds: int
) -> dict[str, float]:
    """Ask each contender about each picture, one request at a time.

    A first round, in which graphs are compiled for new sizes, is not timed. From picture to picture another contender
    begins, so that none always follows the same one.

    Args:
        contenders: by name.
        pictures: at least one.
        rounds: how often each picture is asked about.

    Returns:
        Median of all requests of a contender in milliseconds, by name.
    """
    names = list(contenders)
    milliseconds: dict[str, list[float]] = {name: [] for name in names}
    turns = [(number, picture) for number in range(rounds + 1) for picture in pictures]
    for place, (number, picture) in enumerate(tqdm(turns, desc="latency", unit="picture", disable=None)):
        first = place % len(names)
        for name in names[first:] + names[:first]:
            started = time.perf_counter()
            contenders[name](picture)
            if number > 0:
                milliseconds[name].append(1000 * (time.perf_counter() - started))
    return {name: round(median(values), 2) for name, values in milliseconds.items()}
