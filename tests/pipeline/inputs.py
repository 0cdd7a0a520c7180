"""Inputs of both graphs for the tests of the pipeline."""

from gdino_build.parity import Arrays
from gdino_build.verify import batch_inputs


def make_inputs(padded_hw: tuple[int, int], *pictures: tuple[tuple[int, int], str], tokens: int = 16) -> Arrays:
    """Draw a batch: for each picture its size inside the padded one, and its caption."""
    return batch_inputs(padded_hw, pictures, (tokens,))


def item(inputs: Arrays, index: int) -> Arrays:
    """One picture of a batch, as a batch of one."""
    return {name: value[index : index + 1] for name, value in inputs.items()}
