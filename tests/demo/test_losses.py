"""Losses: values that can be computed by hand, matching, and the two traps of training from nothing."""

import math

import pytest
import torch
from torch import Tensor

from boxes import box_cxcywh_to_xyxy, generalised_iou
from losses import (
    Targets,
    TrainingOutputs,
    compute_losses,
    focal_loss,
    match_densely,
    match_one_to_one,
    pair_costs,
)

TOKENS = 8


def targets_of(*objects: tuple[list[float], list[int]]) -> Targets:
    """Targets from (box cx cy w h, token indices) pairs."""
    token_targets = torch.zeros((len(objects), TOKENS), dtype=torch.bool)
    for row, (_, tokens) in enumerate(objects):
        token_targets[row, tokens] = True
    boxes = torch.tensor([box for box, _ in objects]).reshape(-1, 4)
    return Targets(boxes_cxcywh=boxes, token_targets=token_targets)


LEFT = ([0.25, 0.5, 0.3, 0.4], [1, 2])
RIGHT = ([0.75, 0.5, 0.3, 0.4], [4, 5])
NOTHING = targets_of()


def random_outputs(batch: int, *, seed: int = 0, layers: int = 2, encoder_tokens: int = 40) -> TrainingOutputs:
    generator = torch.Generator().manual_seed(seed)

    def logits(count: int) -> Tensor:
        return torch.randn((batch, count, TOKENS), generator=generator).requires_grad_()

    def boxes(count: int) -> Tensor:
        return torch.rand((batch, count, 4), generator=generator).mul(0.8).add(0.1).requires_grad_()

    return TrainingOutputs(
        encoder_logits=logits(encoder_tokens),
        encoder_boxes=boxes(encoder_tokens),
        encoder_valid=torch.ones((batch, encoder_tokens), dtype=torch.bool),
        decoder_logits=[logits(10) for _ in range(layers)],
        decoder_boxes=[boxes(10) for _ in range(layers)],
        token_mask=torch.ones((batch, TOKENS), dtype=torch.bool),
    )


def picture_of(outputs: TrainingOutputs, index: int) -> TrainingOutputs:
    part = slice(index, index + 1)
    return TrainingOutputs(
        encoder_logits=outputs.encoder_logits[part],
        encoder_boxes=outputs.encoder_boxes[part],
        encoder_valid=outputs.encoder_valid[part],
        decoder_logits=[logits[part] for logits in outputs.decoder_logits],
        decoder_boxes=[boxes[part] for boxes in outputs.decoder_boxes],
        token_mask=outputs.token_mask[part],
    )


def test_focal_loss_equals_its_formula() -> None:
    logit, probability = 0.7, 1 / (1 + math.exp(-0.7))
    present = 0.25 * (1 - probability) ** 2 * -math.log(probability)
    absent = 0.75 * probability**2 * -math.log(1 - probability)
    loss = focal_loss(torch.tensor([logit, logit]), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(loss, torch.tensor([present, absent]))


def test_generalised_iou_equals_values_by_hand() -> None:
    one = torch.tensor([0.0, 0.0, 2.0, 2.0])
    others = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0], [4.0, 0.0, 6.0, 2.0]])
    # The same box; half of it shared; apart, with a third of the hull between them.
    torch.testing.assert_close(generalised_iou(one, others), torch.tensor([1.0, 1 / 3, -1 / 3]))


def test_perfect_predictions_cost_almost_nothing() -> None:
    outputs = random_outputs(1)
    target = targets_of(LEFT, RIGHT)
    with torch.no_grad():
        for logits, boxes in zip(
            [outputs.encoder_logits, *outputs.decoder_logits],
            [outputs.encoder_boxes, *outputs.decoder_boxes],
            strict=True,
        ):
            logits.fill_(-12.0)
            for index in range(boxes.shape[1]):
                item = index % 2
                boxes[0, index] = target.boxes_cxcywh[item]
                if (boxes.shape[1] > 12 and index < 12) or index < 2:
                    logits[0, index, target.token_targets[item]] = 12.0
    assert compute_losses(outputs, [target]).as_floats()["total"] < 1e-3


def test_no_query_serves_two_objects_and_every_object_has_one_in_every_layer() -> None:
    outputs = random_outputs(3)
    targets = [targets_of(LEFT, RIGHT), NOTHING, targets_of(RIGHT)]
    for match in match_one_to_one(outputs.decoder_logits, outputs.decoder_boxes, targets):
        assert match.picture.tolist() == [0, 0, 2]
        assert sorted(match.item[:2].tolist()) == [0, 1]
        assert match.prediction[0] != match.prediction[1]


def test_one_to_one_matching_finds_the_obvious_query() -> None:
    target = targets_of(LEFT, RIGHT)
    logits, boxes = torch.full((1, 10, TOKENS), -5.0), torch.full((1, 10, 4), 0.05)
    for query, item in ((7, 0), (3, 1)):
        boxes[0, query] = target.boxes_cxcywh[item]
        logits[0, query, target.token_targets[item]] = 5.0
    (match,) = match_one_to_one([logits], [boxes], [target])
    assert dict(zip(match.item.tolist(), match.prediction.tolist(), strict=True)) == {0: 7, 1: 3}


def test_equal_boxes_are_told_apart_by_their_label_tokens() -> None:
    target = targets_of(LEFT, (LEFT[0], RIGHT[1]))
    logits = torch.full((2, TOKENS), -3.0)
    logits[0, RIGHT[1]] = 3.0
    logits[1, LEFT[1]] = 3.0
    cost = pair_costs(logits, target.boxes_cxcywh, target)
    assert cost[0, 1] < cost[0, 0]
    assert cost[1, 0] < cost[1, 1]


def test_dense_matches_lie_in_their_objects_and_no_token_serves_two() -> None:
    target = targets_of(LEFT, RIGHT, ([0.3, 0.5, 0.3, 0.4], [6]))
    outputs = random_outputs(1, encoder_tokens=300)
    match = match_densely(outputs.encoder_logits, outputs.encoder_boxes, outputs.encoder_valid, [target], 6)
    corners = box_cxcywh_to_xyxy(target.boxes_cxcywh)[match.item]
    centres = outputs.encoder_boxes[0, match.prediction, :2]
    assert ((centres >= corners[:, :2]) & (centres <= corners[:, 2:])).all()
    assert len(set(match.prediction.tolist())) == len(match.prediction)
    assert set(match.item.tolist()) == {0, 1, 2}
    assert match.item.bincount().max() <= 6


def test_an_object_that_no_token_lies_in_still_teaches_one() -> None:
    outputs = random_outputs(1)
    with torch.no_grad():
        outputs.encoder_boxes[..., :2] = 0.9
    match = match_densely(outputs.encoder_logits, outputs.encoder_boxes, outputs.encoder_valid, [targets_of(LEFT)], 6)
    assert len(match.prediction) == 1


def test_tokens_in_padding_are_never_matched() -> None:
    outputs = random_outputs(1, encoder_tokens=300)
    outputs.encoder_valid[:, 100:] = False
    match = match_densely(
        outputs.encoder_logits, outputs.encoder_boxes, outputs.encoder_valid, [targets_of(LEFT, RIGHT)], 6
    )
    assert len(match.prediction) > 0
    assert match.prediction.max() < 100


def test_a_batch_of_different_prompts_costs_what_its_pictures_cost_one_by_one() -> None:
    """Trap one: transformers 5.23 offsets labels by one picture's count; later pictures learn nonsense."""
    targets = [targets_of(LEFT), targets_of(RIGHT, LEFT), NOTHING, targets_of(([0.5, 0.5, 0.2, 0.2], [7]))]
    outputs = random_outputs(len(targets))
    whole = compute_losses(outputs, targets)
    parts = [compute_losses(picture_of(outputs, index), [target]) for index, target in enumerate(targets)]
    objects = torch.tensor([len(target.boxes_cxcywh) for target in targets])
    for name in ("decoder_class", "decoder_l1", "decoder_giou"):
        sums = torch.stack([getattr(part, name) for part in parts]) * objects.clamp(min=1)
        torch.testing.assert_close(getattr(whole, name), sums.sum() / objects.sum())


def test_gradients_reach_the_encoders_own_boxes_and_logits() -> None:
    """Trap two: supervised on detached boxes, the proposals learn nothing."""
    outputs = random_outputs(1)
    torch.autograd.backward(compute_losses(outputs, [targets_of(LEFT, RIGHT)]).total)
    for tensor in (outputs.encoder_boxes, outputs.encoder_logits, *outputs.decoder_boxes):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


def test_a_batch_without_objects_only_lowers_scores() -> None:
    outputs = random_outputs(2)
    losses = compute_losses(outputs, [NOTHING, NOTHING])
    torch.autograd.backward(losses.total)
    assert losses.as_floats()["encoder_l1"] == losses.as_floats()["decoder_giou"] == 0.0
    assert outputs.encoder_logits.grad is not None
    assert (outputs.encoder_logits.grad >= 0).all()


def test_padded_text_tokens_cost_nothing() -> None:
    outputs = random_outputs(1)
    outputs.token_mask[:, 6:] = False
    with torch.no_grad():
        outputs.encoder_logits[..., 6:] = -1e4
        before = compute_losses(outputs, [targets_of(LEFT, RIGHT)]).total
        outputs.encoder_logits[..., 6:] = -2e4
        after = compute_losses(outputs, [targets_of(LEFT, RIGHT)]).total
    assert math.isfinite(float(before))
    assert float(before) == pytest.approx(float(after))
