"""Inputs of both graphs for the tests of the pipeline."""

import numpy as np

from gdino_build.parity import Arrays
from gdino_build.pictures import draw_picture
from gdino_core import contract
from gdino_core.prompt import encode_prompt


def make_inputs(padded_hw: tuple[int, int], *pictures: tuple[tuple[int, int], str], tokens: int = 16) -> Arrays:
    """Draw a batch: for each picture its size inside the padded one, and its caption."""
    pixels = np.zeros((len(pictures), 3, *padded_hw), np.uint8)
    for index, ((height, width), _) in enumerate(pictures):
        pixels[index, :, :height, :width] = draw_picture(index, height, width).transpose(2, 0, 1)
    prompts = [encode_prompt((caption,), (tokens,)) for _, caption in pictures]
    return {
        contract.PIXELS: pixels,
        contract.VALID_HW: np.array([valid_hw for valid_hw, _ in pictures], np.int32),
        contract.INPUT_IDS: np.stack([prompt.input_ids for prompt in prompts]),
        contract.POSITION_IDS: np.stack([prompt.position_ids for prompt in prompts]),
        contract.PHRASE_IDS: np.stack([prompt.phrase_ids for prompt in prompts]),
    }


def item(inputs: Arrays, index: int) -> Arrays:
    """One picture of a batch, as a batch of one."""
    return {name: value[index : index + 1] for name, value in inputs.items()}
