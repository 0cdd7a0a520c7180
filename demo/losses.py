"""Training losses of GroundingDINO: what the model is compared with, and how.

Two things make training from scratch work that fine-tuning can do without:

* Targets are built picture by picture, because every picture has a prompt of its own.
* The encoder is supervised densely: every token's boxes and logits, not detached, and several tokens for each
  object. The decoder starts from the encoder's best tokens, so it learns nothing as long as these are bad.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from boxes import box_cxcywh_to_xyxy, generalised_iou

FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0
CLASS_WEIGHT = 2.0
L1_WEIGHT = 5.0
GIOU_WEIGHT = 2.0
ENCODER_TOKENS_PER_OBJECT = 6

# Larger than any cost of a reasonable match, so that a token outside an object comes after all those inside.
_OUTSIDE_COST = 1e3
_INVALID_COST = 1e6


@dataclass(frozen=True, kw_only=True)
class TrainingOutputs:
    """What the model says about a batch while it is trained.

    Boxes are cx, cy, w, h in [0, 1] of the unpadded picture.

    Attributes:
        encoder_logits: float [B,S,T], every encoder token against every text token; masked ones about -1e4.
        encoder_boxes: float [B,S,4], dense and not detached.
        encoder_valid: bool [B,S], false for tokens that lie in padding or have no proposal.
        decoder_logits: float [B,Q,T] of each decoder layer.
        decoder_boxes: float [B,Q,4] of each decoder layer.
        token_mask: bool [B,T], true for real text tokens.
    """

    encoder_logits: Tensor
    encoder_boxes: Tensor
    encoder_valid: Tensor
    decoder_logits: list[Tensor]
    decoder_boxes: list[Tensor]
    token_mask: Tensor


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The objects of one picture whose label its prompt asks for; there may be none.

    Attributes:
        boxes_cxcywh: float [n,4] in [0, 1] of the unpadded picture.
        token_targets: bool [n,T], the word tokens of the object's label in this picture's prompt.
    """

    boxes_cxcywh: Tensor
    token_targets: Tensor


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Unweighted parts of the loss, each a scalar tensor; the decoder's are sums over its layers."""

    encoder_class: Tensor
    encoder_l1: Tensor
    encoder_giou: Tensor
    decoder_class: Tensor
    decoder_l1: Tensor
    decoder_giou: Tensor

    @property
    def total(self) -> Tensor:
        """The weighted sum to minimise."""
        return (
            CLASS_WEIGHT * (self.encoder_class + self.decoder_class)
            + L1_WEIGHT * (self.encoder_l1 + self.decoder_l1)
            + GIOU_WEIGHT * (self.encoder_giou + self.decoder_giou)
        )

    def as_floats(self) -> dict[str, float]:
        """Every part and `total`, for a progress line."""
        parts = {part.name: float(getattr(self, part.name).detach()) for part in fields(self)}
        return parts | {"total": float(self.total.detach())}


@dataclass(frozen=True, kw_only=True)
class Match:
    """Pairs of predictions and objects in a batch, as parallel index vectors int64 [m].

    Attributes:
        picture: index of the picture in the batch.
        prediction: index of the query or encoder token in the picture.
        item: index of the object in the picture.
    """

    picture: Tensor
    prediction: Tensor
    item: Tensor


def compute_losses(outputs: TrainingOutputs, targets: Sequence[Targets]) -> Losses:
    """Match predictions with objects and measure the difference.

    Args:
        outputs: of a batch of B pictures.
        targets: of the same B pictures, on the same device.

    Returns:
        The parts, each normalised by the number of matched pairs (at least 1); gradients flow into `outputs`.
    """
    encoder_match = match_densely(
        outputs.encoder_logits,
        outputs.encoder_boxes,
        outputs.encoder_valid,
        targets,
        ENCODER_TOKENS_PER_OBJECT,
    )
    # Invalid tokens stay in the class loss as background: TopK sees them too, so they must score low.
    encoder = _compare(outputs.encoder_logits, outputs.encoder_boxes, outputs.token_mask, targets, encoder_match)
    matches = match_one_to_one(outputs.decoder_logits, outputs.decoder_boxes, targets)
    decoder = [
        _compare(logits, boxes, outputs.token_mask, targets, match)
        for logits, boxes, match in zip(outputs.decoder_logits, outputs.decoder_boxes, matches, strict=True)
    ]
    decoder_class, decoder_l1, decoder_giou = (torch.stack(parts).sum() for parts in zip(*decoder, strict=True))
    return Losses(
        encoder_class=encoder[0],
        encoder_l1=encoder[1],
        encoder_giou=encoder[2],
        decoder_class=decoder_class,
        decoder_l1=decoder_l1,
        decoder_giou=decoder_giou,
    )


@torch.no_grad()
def match_one_to_one(
    layer_logits: Sequence[Tensor], layer_boxes: Sequence[Tensor], targets: Sequence[Targets]
) -> list[Match]:
    """Pair every object with the query that fits it best, no query twice, in each decoder layer on its own.

    Args:
        layer_logits: float [B,Q,T] of each layer.
        layer_boxes: float [B,Q,4] of each layer, cx, cy, w, h.
        targets: of the B pictures, each with at most Q objects.

    Returns:
        One match a layer.
    """
    logits, boxes = (
        torch.stack(list(layer_logits), dim=1),
        torch.stack(list(layer_boxes), dim=1),
    )  # [B,L,Q,..]
    pairs: list[list[tuple[int, int, int]]] = [[] for _ in layer_logits]
    for picture, target in enumerate(targets):
        if len(target.boxes_cxcywh) == 0:
            continue
        costs = pair_costs(logits[picture], boxes[picture], target).cpu().numpy()  # [L,Q,n]
        for layer, cost in enumerate(costs):
            queries, items = linear_sum_assignment(cost)
            pairs[layer].extend((picture, int(query), int(item)) for query, item in zip(queries, items, strict=True))
    indices = [torch.tensor(layer, device=logits.device).reshape(-1, 3).long() for layer in pairs]
    return [Match(picture=index[:, 0], prediction=index[:, 1], item=index[:, 2]) for index in indices]


@torch.no_grad()
def match_densely(
    logits: Tensor, boxes: Tensor, valid: Tensor, targets: Sequence[Targets], tokens_per_object: int
) -> Match:
    """Pair every object with the cheapest encoder tokens whose predicted centre lies in its box.

    A token that suits two objects goes to the one it costs less. An object no token's centre lies in takes
    its cheapest valid token.

    Args:
        logits: float [B,S,T].
        boxes: float [B,S,4], cx, cy, w, h.
        valid: bool [B,S].
        targets: of the B pictures.
        tokens_per_object: most tokens an object takes.

    Returns:
        The match.
    """
    found: list[Tensor] = []
    for picture, target in enumerate(targets):
        if len(target.boxes_cxcywh) == 0:
            continue
        cost = pair_costs(logits[picture], boxes[picture], target)  # [S,n]
        centres, goal = boxes[picture, :, None, :2], target.boxes_cxcywh[None]
        outside = ((centres - goal[..., :2]).abs() > goal[..., 2:] / 2).any(dim=-1)
        cost = cost.nan_to_num(nan=_OUTSIDE_COST) + _OUTSIDE_COST * outside + _INVALID_COST * ~valid[picture, :, None]
        lowest, tokens = cost.topk(min(tokens_per_object, len(cost)), dim=0, largest=False)  # [k,n]
        keep = lowest < _OUTSIDE_COST / 2
        keep[0] = lowest[0] < _INVALID_COST / 2
        claimed = torch.full_like(cost, torch.inf).scatter(0, tokens, lowest.masked_fill(~keep, torch.inf))
        best_cost, best_item = claimed.min(dim=1)
        token = best_cost.isfinite().nonzero().squeeze(1)
        found.append(torch.stack((torch.full_like(token, picture), token, best_item[token]), dim=1))
    index = torch.cat(found) if found else torch.zeros((0, 3), dtype=torch.long, device=logits.device)
    return Match(picture=index[:, 0], prediction=index[:, 1], item=index[:, 2])


def pair_costs(logits: Tensor, boxes: Tensor, target: Targets) -> Tensor:
    """Price every prediction of one picture as a match for every object; lower fits better.

    Args:
        logits: float [...,P,T].
        boxes: float [...,P,4], cx, cy, w, h.
        target: the picture's n objects.

    Returns:
        float [...,P,n]: focal cost averaged over the label's tokens, L1 and GIoU, weighted like the losses.

    Source: DETR, models/matcher.py, and GroundingDINO's label maps.
    """
    probability = logits.sigmoid()
    if_present = FOCAL_ALPHA * (1 - probability) ** FOCAL_GAMMA * -functional.logsigmoid(logits)
    if_absent = (1 - FOCAL_ALPHA) * probability**FOCAL_GAMMA * -functional.logsigmoid(-logits)
    label_tokens = target.token_targets.to(logits.dtype)
    label_tokens = label_tokens / label_tokens.sum(dim=1, keepdim=True).clamp(min=1)
    class_cost = (if_present - if_absent) @ label_tokens.T
    l1_cost = (boxes[..., :, None, :] - target.boxes_cxcywh).abs().sum(dim=-1)
    giou = generalised_iou(box_cxcywh_to_xyxy(boxes)[..., :, None, :], box_cxcywh_to_xyxy(target.boxes_cxcywh))
    return CLASS_WEIGHT * class_cost + L1_WEIGHT * l1_cost - GIOU_WEIGHT * giou


def focal_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Sigmoid focal loss, element by element.

    Args:
        logits: float, any shape.
        wanted: float in {0, 1}, the same shape.

    Returns:
        float, the same shape, >= 0.

    Source: Lin et al., Focal Loss for Dense Object Detection, with alpha and gamma of GroundingDINO.
    """
    probability = logits.sigmoid()
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    error = probability + wanted - 2 * probability * wanted
    alpha = (1 - FOCAL_ALPHA) + (2 * FOCAL_ALPHA - 1) * wanted
    return alpha * cross_entropy * error**FOCAL_GAMMA


def _compare(
    logits: Tensor, boxes: Tensor, token_mask: Tensor, targets: Sequence[Targets], match: Match
) -> tuple[Tensor, Tensor, Tensor]:
    """Class, L1 and GIoU losses of one set of predictions, given its match."""
    offsets = torch.tensor([0] + [len(target.boxes_cxcywh) for target in targets], device=logits.device).cumsum(0)
    goal = offsets[match.picture] + match.item
    goal_boxes = torch.cat([target.boxes_cxcywh for target in targets])[goal]
    goal_tokens = torch.cat([target.token_targets for target in targets])[goal]
    pairs = max(len(goal), 1)

    wanted = torch.zeros_like(logits)
    wanted[match.picture, match.prediction] = goal_tokens.to(logits.dtype)
    real = token_mask[:, None, :].expand_as(logits)
    class_loss = focal_loss(logits, wanted).masked_fill(~real, 0).sum() / pairs

    matched_boxes = boxes[match.picture, match.prediction]
    l1_loss = (matched_boxes - goal_boxes).abs().sum() / pairs
    giou = generalised_iou(box_cxcywh_to_xyxy(matched_boxes), box_cxcywh_to_xyxy(goal_boxes))
    return class_loss, l1_loss, (1 - giou).sum() / pairs
