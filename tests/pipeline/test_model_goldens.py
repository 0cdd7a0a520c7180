"""The model answers as the original groundingdino package does, whose answers are in tests/goldens."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gdino_build.against_original import compare_forced, golden_inputs
from gdino_build.checkpoint import canonical_state_dict, load_model, read_state_dict
from gdino_build.golden import Answer, Golden, load_golden, pixels_sha256, weights_sha256
from gdino_build.model import (
    DEMO,
    SWINB_COGCOOR,
    SWINT_OGC,
    GroundingDino,
    geometry,
    grounding_dino,
    swin,
    text,
    transformer,
)
from gdino_build.model.attention import DeformableAttention
from gdino_build.model.geometry import Geometry, inside_maps
from gdino_build.model.projection import PictureGroupNorm
from gdino_build.model.swin import PatchMerging, SwinBlock, shift_masks
from gdino_build.model.transformer import TextTokens, Transformer, contrastive_logits
from gdino_build.profile import load_profile
from gdino_build.random_weights import random_state_dict
from gdino_build.served import preprocessed
from gdino_build.stages import TorchStage
from gdino_build.verify_report import TOLERANCE
from gdino_core import contract

ROOT = Path(__file__).parents[2]
TEXT_TOLERANCE = 1e-5
SCORE_TOLERANCE = 1e-5
FULL_SIZE = {"swint_random": SWINT_OGC, "swinb_random": SWINB_COGCOOR}
PROFILES = {"demo_random": "demo-cpu", "swint_random": "swint-cpu", "swinb_random": "swinb-cpu"}


@cache
def golden(name: str) -> Golden:
    return load_golden(ROOT / "tests" / "goldens" / f"{name}.npz")


def one_case(name: str, case: str) -> Golden:
    return replace(golden(name), cases=tuple(pair for pair in golden(name).cases if pair[0].name == case))


def case_names(name: str) -> list[str]:
    return [case.name for case, _ in golden(name).cases]


def sha256_of(state: dict[str, Tensor]) -> str:
    return weights_sha256((name, tensor.numpy()) for name, tensor in state.items())


def text_difference(model: GroundingDino, answer: Answer) -> float:
    ids = (torch.from_numpy(ids)[None] for ids in (answer.input_ids, answer.position_ids, answer.phrase_ids))
    return float(np.abs(model.encode_text(*ids)[0].numpy() - answer.text_features).max())


def assert_as_the_original(model: GroundingDino, answers: Golden) -> None:
    assert answers.cases
    found = compare_forced(answers, TorchStage(model).forced)
    assert found.within(TOLERANCE), found


def test_the_goldens_belong_to_the_random_weights_of_today(demo_state: dict[str, Tensor]) -> None:
    assert sha256_of(demo_state) == golden("demo_random").weights_sha256


def test_the_goldens_cover_five_sizes_padding_on_either_side_and_short_and_long_prompts() -> None:
    cases = [case for case, _ in golden("demo_random").cases]
    padding = {(case.padded_hw[0] > case.valid_hw[0], case.padded_hw[1] > case.valid_hw[1]) for case in cases}
    tokens = [len(answer.input_ids) for _, answer in golden("demo_random").cases]
    assert len({case.padded_hw for case in cases}) >= 5
    assert padding == {(False, False), (True, False), (False, True), (True, True)}
    assert min(tokens) <= 5
    assert max(tokens) >= 70


@pytest.mark.parametrize("case", case_names("demo_random"))
def test_the_demo_model_answers_as_the_original(demo_model: GroundingDino, case: str) -> None:
    assert_as_the_original(demo_model, one_case("demo_random", case))


@pytest.mark.parametrize("case", case_names("demo_random"))
def test_text_features_are_those_of_the_original(demo_model: GroundingDino, case: str) -> None:
    [(_, answer)] = one_case("demo_random", case).cases
    assert text_difference(demo_model, answer) <= TEXT_TOLERANCE


@pytest.mark.parametrize("case", case_names("demo_random"))
def test_image_tokens_score_as_in_the_original(demo_model: GroundingDino, case: str) -> None:
    [(described, answer)] = one_case("demo_random", case).cases
    forced = TorchStage(demo_model).forced(golden_inputs(described, answer), answer.proposals[None].astype(np.int64))
    tokens = np.concatenate((answer.proposals, answer.runner_ups))
    scores = np.concatenate((answer.proposal_scores, answer.runner_up_scores))
    np.testing.assert_allclose(forced.scores[0, tokens], scores, rtol=0, atol=SCORE_TOLERANCE)


def test_the_bundled_checkpoint_answers_as_the_original() -> None:
    state = canonical_state_dict(read_state_dict(ROOT / "demo" / "checkpoint.safetensors"))
    answers = golden("demo_checkpoint")
    assert sha256_of(state) == answers.weights_sha256, "the checkpoint is newer than its answers: run `make goldens`"
    assert_as_the_original(load_model(DEMO, state), answers)


@cache
def full_size_model(name: str) -> GroundingDino:
    config = FULL_SIZE[name]
    return load_model(config, random_state_dict(config))


@pytest.mark.parametrize("name", ["swint_random", pytest.param("swinb_random", marks=pytest.mark.full)])
def test_the_full_size_goldens_belong_to_the_random_weights_of_today(name: str) -> None:
    assert sha256_of(full_size_model(name).state_dict()) == golden(name).weights_sha256


@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(
            name, case.name, marks=pytest.mark.full if name == "swinb_random" or min(case.valid_hw) > 700 else ()
        )
        for name in FULL_SIZE
        for case, _ in golden(name).cases
    ],
)
def test_full_size_models_answer_as_the_original(name: str, case: str) -> None:
    answers = one_case(name, case)
    assert_as_the_original(full_size_model(name), answers)
    assert text_difference(full_size_model(name), answers.cases[0][1]) <= TEXT_TOLERANCE


@pytest.mark.parametrize(("name", "case"), [(name, case) for name in PROFILES for case in case_names(name)])
def test_the_server_resizes_pictures_to_the_pixels_that_the_original_saw(name: str, case: str) -> None:
    [(described, answer)] = one_case(name, case).cases
    height, width = described.valid_hw
    pixels = described.padded_picture()[:height, :width]
    if described.picture_hw != described.valid_hw:
        inputs, _ = preprocessed(described.picture(), (described.caption,), load_profile(PROFILES[name]).preprocess)
        assert tuple(inputs[contract.VALID_HW][0]) == described.valid_hw
        pixels = inputs[contract.PIXELS][0, :, :height, :width].transpose(1, 2, 0)
    assert pixels_sha256(pixels) == answer.pixels_sha256


Patch = pytest.MonkeyPatch


def do_not_shift_windows(model: GroundingDino, patch: Patch) -> None:
    for module in model.modules():
        if isinstance(module, SwinBlock):
            patch.setattr(module, "shift", 0)


def let_shifted_regions_see_each_other(_: GroundingDino, patch: Patch) -> None:
    patch.setattr("gdino_build.model.swin._SHIFT_PENALTY", 0.0)


def merge_rows_before_columns(model: GroundingDino, patch: Patch) -> None:
    def forward(self: PatchMerging, x: Tensor, map_hw: tuple[int, int]) -> Tensor:
        height, width = map_hw[0] // 2, map_hw[1] // 2
        x = x.view(-1, height, 2, width, 2, self.dim).permute(0, 1, 3, 2, 4, 5)
        merged: Tensor = self.reduction(self.norm(x.reshape(-1, height * width, 4 * self.dim)))
        return merged

    patch.setattr(PatchMerging, "forward", forward)


def see_other_phrases_in_bert(_: GroundingDino, patch: Patch) -> None:
    patch.setattr(text, "phrase_mask", lambda ids: torch.zeros(ids.shape[0], 1, ids.shape[1], ids.shape[1]))


def see_other_phrases_in_the_detector(_: GroundingDino, patch: Patch) -> None:
    patch.setattr(grounding_dino, "phrase_mask", lambda ids: torch.zeros(ids.shape[0], 1, ids.shape[1], ids.shape[1]))


def take_hugging_faces_epsilon(_: GroundingDino, patch: Patch) -> None:
    patch.setattr(transformer, "_SIGMOID_EPS", 1e-5)


def take_the_boxes_temperature_for_the_image(_: GroundingDino, patch: Patch) -> None:
    patch.setattr(geometry, "_IMAGE_TEMPERATURE", 10000.0)


def see_the_frame_in_windows(_: GroundingDino, patch: Patch) -> None:
    patch.setattr(swin, "inside_maps", lambda map_hws, cells: inside_maps(map_hws, torch.full_like(cells, 1 << 20)))


def let_shifted_windows_reach_beyond_the_originals(_: GroundingDino, patch: Patch) -> None:
    def of_the_frames(map_hws: list[tuple[int, int]], cells: Tensor, window: int) -> list[Tensor]:
        return shift_masks(map_hws, torch.tensor(map_hws).expand_as(cells), window)

    patch.setattr(swin, "shift_masks", of_the_frames)


def normalise_over_the_frame(_: GroundingDino, patch: Patch) -> None:
    normalise = PictureGroupNorm.forward
    patch.setattr(PictureGroupNorm, "forward", lambda self, x, inside: normalise(self, x, torch.ones_like(inside)))


def propose_padding(_: GroundingDino, patch: Patch) -> None:
    def scores(self: Transformer, features: Tensor, text: TextTokens, _: Geometry) -> Tensor:
        return contrastive_logits(features, text).amax(-1)

    patch.setattr(Transformer, "proposal_scores", scores)


def read_padding_as_picture(_: GroundingDino, patch: Patch) -> None:
    build = geometry.build_geometry

    def built(*arguments: object) -> Geometry:
        found: Geometry = build(*arguments)
        return replace(found, token_valid=torch.ones_like(found.token_valid))

    patch.setattr(grounding_dino, "build_geometry", built)


def forget_the_valid_ratio(_: GroundingDino, patch: Patch) -> None:
    build = geometry.build_geometry

    def built(*arguments: object) -> Geometry:
        found: Geometry = build(*arguments)
        return replace(found, valid_ratio=torch.ones_like(found.valid_ratio))

    patch.setattr(grounding_dino, "build_geometry", built)


def start_from_smaller_anchors(_: GroundingDino, patch: Patch) -> None:
    patch.setattr(geometry, "_ANCHOR_SIDE", 0.045)


def measure_offsets_in_whole_boxes(_: GroundingDino, patch: Patch) -> None:
    locations = DeformableAttention._locations

    def doubled(self: DeformableAttention, reference: Tensor, offsets: Tensor, hw: list[tuple[int, int]]) -> Tensor:
        return locations(self, reference, offsets * 2 if reference.shape[-1] == 4 else offsets, hw)

    patch.setattr(DeformableAttention, "_locations", doubled)


@pytest.mark.parametrize(
    ("mistake", "case"),
    [
        (do_not_shift_windows, "landscape"),
        (let_shifted_regions_see_each_other, "landscape"),
        (merge_rows_before_columns, "small"),
        (see_other_phrases_in_bert, "landscape"),
        (see_other_phrases_in_the_detector, "landscape"),
        (take_hugging_faces_epsilon, "border"),
        (take_the_boxes_temperature_for_the_image, "small"),
        (see_the_frame_in_windows, "padded"),
        (let_shifted_windows_reach_beyond_the_originals, "lost_in_its_frame"),
        (normalise_over_the_frame, "padded"),
        (propose_padding, "border"),
        (read_padding_as_picture, "padded"),
        (forget_the_valid_ratio, "padded"),
        (start_from_smaller_anchors, "small"),
        (measure_offsets_in_whole_boxes, "small"),
    ],
)
def test_a_mistake_in_the_model_does_not_pass(
    demo_model: GroundingDino,
    monkeypatch: Patch,
    mistake: Callable[[GroundingDino, Patch], None],
    case: str,
) -> None:
    mistake(demo_model, monkeypatch)
    assert not compare_forced(one_case("demo_random", case), TorchStage(demo_model).forced).within(TOLERANCE)
