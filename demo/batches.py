"""Training batches from the demo world, each a function of a seed and a step: training resumes exactly."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from gdino_build.profile import load_profile
from gdino_core.prompt import EncodedPrompt, encode_prompt
from losses import Targets
from scenes import ASPECT_RANGE, LABELS, Scene, boxes_xyxy, random_scene, render

# Streams of random numbers that never meet, whatever the seeds: see `stream`.
TRAINING_STREAM, EVALUATION_STREAM, SAMPLES_STREAM = 0, 1, 2

TEXT_BUCKETS = (16, 32, 48, 64, 80)
SHORT_SIDE_RANGE = (96, 128)
# The sizes that serving will use, but for those of very thin pictures.
BUCKETS_HW = tuple(
    hw for hw in load_profile("demo-cpu").preprocess.resolution_buckets if min(hw) >= SHORT_SIDE_RANGE[1]
)
FULL_SIZE_SHARE = 0.5  # of the pictures have the short side that serving will use
PROMPT_SIZES = (6, 12, 24)  # most labels a prompt of one batch has
PROMPT_SIZE_SHARES = (0.2, 0.3, 0.5)
FULL_PROMPT_SHARE = 0.5  # of the prompts are as long as their batch allows
PRESENT_LABEL_ODDS = 6.0  # how much likelier than an absent label a present one is asked for


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B pictures at the top left of one padded size, each with a prompt of its own.

    Attributes:
        pixels: uint8 [B,3,H,W], RGB.
        valid_hw: int32 [B,2].
        input_ids: int32 [B,T].
        position_ids: int32 [B,T].
        phrase_ids: int32 [B,T].
        targets: of each picture.
    """

    pixels: Tensor
    valid_hw: Tensor
    input_ids: Tensor
    position_ids: Tensor
    phrase_ids: Tensor
    targets: tuple[Targets, ...]

    def to(self, device: torch.device) -> "Batch":
        """Copy the batch to a device."""
        return Batch(
            pixels=self.pixels.to(device),
            valid_hw=self.valid_hw.to(device),
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            phrase_ids=self.phrase_ids.to(device),
            targets=tuple(
                Targets(
                    boxes_cxcywh=target.boxes_cxcywh.to(device),
                    token_targets=target.token_targets.to(device),
                )
                for target in self.targets
            ),
        )


class TrainingBatches(Dataset[Batch]):
    """Batches by step; an index is a step."""

    def __init__(self, *, seed: int, batch_size: int) -> None:
        """Fix what the batches depend on besides the step."""
        self._seed = seed
        self._batch_size = batch_size

    def __getitem__(self, step: int) -> Batch:
        """Make the batch of a step."""
        return make_batch(stream(TRAINING_STREAM, self._seed, step), self._batch_size)


def stream(*key: int) -> np.random.Generator:
    """Random numbers that depend on every part of a key."""
    return np.random.default_rng(np.random.SeedSequence(list(key)))


def make_batch(rng: np.random.Generator, batch_size: int) -> Batch:
    """Draw scenes, sizes and prompts.

    Args:
        rng: the only source of chance.
        batch_size: number of pictures.

    Returns:
        The batch, padded to one of BUCKETS_HW and to one of TEXT_BUCKETS.
    """
    bucket_hw = BUCKETS_HW[int(rng.integers(len(BUCKETS_HW)))]
    most_labels = int(rng.choice(PROMPT_SIZES, p=PROMPT_SIZE_SHARES))
    pixels = np.zeros((batch_size, *bucket_hw, 3), dtype=np.uint8)
    valid_hw = np.zeros((batch_size, 2), dtype=np.int32)
    scenes: list[Scene] = []
    prompts: list[tuple[str, ...]] = []
    for index in range(batch_size):
        aspect, (height, width) = _random_size(rng, bucket_hw)
        scene = random_scene(rng, aspect)
        full = rng.random() < FULL_PROMPT_SHARE
        count = most_labels if full else int(rng.integers(1, most_labels + 1))
        pixels[index, :height, :width] = render(scene, height, width)
        valid_hw[index] = height, width
        scenes.append(scene)
        prompts.append(random_prompt(rng, scene, count))

    encoded = encode_prompts(prompts)
    return Batch(
        pixels=torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        valid_hw=torch.from_numpy(valid_hw),
        input_ids=torch.from_numpy(np.stack([prompt.input_ids for prompt in encoded])),
        position_ids=torch.from_numpy(np.stack([prompt.position_ids for prompt in encoded])),
        phrase_ids=torch.from_numpy(np.stack([prompt.phrase_ids for prompt in encoded])),
        targets=tuple(
            make_targets(scene, labels, prompt) for scene, labels, prompt in zip(scenes, prompts, encoded, strict=True)
        ),
    )


def random_prompt(rng: np.random.Generator, scene: Scene, count: int) -> tuple[str, ...]:
    """Choose labels to ask for, in random order.

    Args:
        rng: the only source of chance.
        scene: its labels are likelier than others, yet not certain to be asked for.
        count: number of labels, from 1 to len(LABELS).

    Returns:
        Distinct labels.
    """
    present = set(scene.labels)
    odds = np.array([PRESENT_LABEL_ODDS if label in present else 1.0 for label in LABELS])
    # The draw comes out with likely labels first; the shuffle keeps the order from telling which are present.
    chosen = rng.permutation(rng.choice(len(LABELS), size=count, replace=False, p=odds / odds.sum()))
    return tuple(LABELS[index] for index in chosen)


def encode_prompts(prompts: list[tuple[str, ...]]) -> list[EncodedPrompt]:
    """Tokenise prompts and pad them all to the smallest text bucket that holds every one."""
    longest = max(len(encode_prompt(labels, TEXT_BUCKETS).input_ids) for labels in prompts)
    return [encode_prompt(labels, (longest,)) for labels in prompts]


def make_targets(scene: Scene, labels: tuple[str, ...], prompt: EncodedPrompt) -> Targets:
    """Turn the objects whose label is asked for into targets; the others are background.

    Args:
        scene: the scene.
        labels: what the prompt asks for.
        prompt: the encoded prompt.

    Returns:
        Boxes and label tokens of the objects asked for.
    """
    asked = [index for index, label in enumerate(scene.labels) if label in labels]
    spans = label_spans(prompt)
    token_targets = torch.zeros((len(asked), len(prompt.input_ids)), dtype=torch.bool)
    for row, index in enumerate(asked):
        start, end = spans[labels.index(scene.labels[index])]
        token_targets[row, start:end] = True
    boxes = relative_boxes_cxcywh(scene)[asked]
    return Targets(boxes_cxcywh=torch.from_numpy(boxes), token_targets=token_targets)


def label_spans(prompt: EncodedPrompt) -> tuple[tuple[int, int], ...]:
    """First token and the one past the last of each label, without its final ".".

    A prompt of one text is a caption, which has no spans; here it is one label between [CLS] and ". [SEP]".
    """
    return prompt.spans if prompt.labels is not None else ((1, prompt.num_tokens - 2),)


def relative_boxes_cxcywh(scene: Scene) -> NDArray[np.float32]:
    """Boxes of a scene's objects, float32 [n, 4], cx, cy, w, h in [0, 1] of the picture."""
    corners = boxes_xyxy(scene, 1, 1)
    return np.concatenate(((corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]), axis=1)


def _random_size(rng: np.random.Generator, bucket_hw: tuple[int, int]) -> tuple[float, tuple[int, int]]:
    """Draw an aspect ratio, and a height and width that fit a bucket."""
    low, high = SHORT_SIDE_RANGE
    short = high if rng.random() < FULL_SIZE_SHARE else int(rng.integers(low, high + 1))
    tallest = max(ASPECT_RANGE[0], short / bucket_hw[0])
    widest = min(ASPECT_RANGE[1], bucket_hw[1] / short)
    aspect = math.exp(rng.uniform(math.log(tallest), math.log(widest)))
    height, width = round(short * max(1 / aspect, 1)), round(short * max(aspect, 1))
    return aspect, (min(height, bucket_hw[0]), min(width, bucket_hw[1]))
