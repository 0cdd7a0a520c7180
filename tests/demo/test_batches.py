"""Batches: reproducible, and their targets say what the pictures show."""

import numpy as np
import pytest
import torch

from batches import (
    BUCKETS_HW,
    EVALUATION_STREAM,
    SHORT_SIDE_RANGE,
    TRAINING_STREAM,
    TrainingBatches,
    encode_prompts,
    make_batch,
    make_targets,
    random_prompt,
    stream,
)
from gdino_core.prompt import load_tokenizer
from scenes import LABELS, Scene, random_scene


def scene_with(count: int) -> Scene:
    rng = stream(9)
    return next(scene for scene in iter(lambda: random_scene(rng), None) if len(scene.objects) == count)


def test_a_step_always_has_the_same_batch() -> None:
    one, other = (TrainingBatches(seed=3, batch_size=2)[17] for _ in range(2))
    assert torch.equal(one.pixels, other.pixels)
    assert torch.equal(one.input_ids, other.input_ids)


def test_no_two_steps_have_the_same_scenes() -> None:
    batches = TrainingBatches(seed=3, batch_size=2)
    boxes = {tuple(batches[step].targets[0].boxes_cxcywh.flatten().tolist()) for step in range(0, 100, 5)}
    assert len(boxes) >= 19  # a picture without asked objects has no boxes


def test_held_out_scenes_are_none_of_the_training_scenes() -> None:
    training = {random_scene(stream(TRAINING_STREAM, 0, index)) for index in range(50)}
    held_out = {random_scene(stream(EVALUATION_STREAM, 0, index)) for index in range(50)}
    assert not training & held_out


@pytest.mark.parametrize("seed", range(4))
def test_pictures_fit_their_bucket_and_padding_is_black(seed: int) -> None:
    batch = make_batch(stream(seed), 3)
    height, width = batch.pixels.shape[2:]
    assert (height, width) in BUCKETS_HW
    for picture, (valid_height, valid_width) in zip(batch.pixels, batch.valid_hw.tolist(), strict=True):
        assert SHORT_SIDE_RANGE[0] <= min(valid_height, valid_width)
        assert valid_height <= height
        assert valid_width <= width
        assert picture[:, valid_height:].sum() == picture[:, :, valid_width:].sum() == 0


def test_targets_mark_exactly_the_words_of_each_objects_label() -> None:
    scene = scene_with(4)
    prompt = LABELS[::-1]
    (encoded,) = encode_prompts([prompt])
    targets = make_targets(scene, prompt, encoded)
    tokenizer = load_tokenizer()
    marked = [tokenizer.decode(encoded.input_ids[mask.numpy()].tolist()) for mask in targets.token_targets]
    assert marked == list(scene.labels)


def test_a_prompt_of_one_label_marks_its_words_too() -> None:
    scene = scene_with(1)
    (encoded,) = encode_prompts([scene.labels])
    targets = make_targets(scene, scene.labels, encoded)
    assert load_tokenizer().decode(encoded.input_ids[targets.token_targets[0].numpy()].tolist()) == scene.labels[0]


def test_objects_that_are_not_asked_for_are_background() -> None:
    scene = scene_with(3)
    prompt = tuple(label for label in LABELS if label != scene.labels[0])
    (encoded,) = encode_prompts([prompt])
    targets = make_targets(scene, prompt, encoded)
    assert len(targets.boxes_cxcywh) == sum(label != scene.labels[0] for label in scene.labels)


def test_prompts_hold_distinct_labels_absent_ones_among_them_in_an_order_that_tells_nothing() -> None:
    scene, rng = scene_with(3), stream(1)
    prompts = [random_prompt(rng, scene, 8) for _ in range(400)]
    assert all(len(set(prompt)) == 8 for prompt in prompts)
    assert all(set(prompt) - set(scene.labels) for prompt in prompts)
    places = [index for prompt in prompts for index, label in enumerate(prompt) if label in scene.labels]
    assert np.mean(places) == pytest.approx(3.5, abs=0.3)
