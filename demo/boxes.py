"""Geometry of boxes as tensors."""

import torch
from torch import Tensor


def box_cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Turn centre boxes [..., 4] into corner boxes [..., 4] in the same unit."""
    centre, size = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:]
    return torch.cat((centre - size / 2, centre + size / 2), dim=-1)


def generalised_iou(one_xyxy: Tensor, other_xyxy: Tensor) -> Tensor:
    """Compute the generalised IoU of corner boxes [..., 4] that broadcast, in [-1, 1].

    Source: Rezatofighi et al., Generalized Intersection over Union.
    """
    shared = (
        torch.minimum(one_xyxy[..., 2:], other_xyxy[..., 2:]) - torch.maximum(one_xyxy[..., :2], other_xyxy[..., :2])
    ).clamp(min=0)
    hull = torch.maximum(one_xyxy[..., 2:], other_xyxy[..., 2:]) - torch.minimum(one_xyxy[..., :2], other_xyxy[..., :2])
    shared_area, hull_area = shared.prod(dim=-1), hull.prod(dim=-1).clamp(min=1e-9)
    one_area = (one_xyxy[..., 2:] - one_xyxy[..., :2]).prod(dim=-1)
    other_area = (other_xyxy[..., 2:] - other_xyxy[..., :2]).prod(dim=-1)
    union = (one_area + other_area - shared_area).clamp(min=1e-9)
    return shared_area / union - (hull_area - union) / hull_area
