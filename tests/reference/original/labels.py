"""How the original scores labels: its COCO evaluation.

The package on PyPI lacks demo/test_ap_on_coco.py, so PostProcessCocoGrounding.forward() is copied from
https://github.com/IDEA-Research/GroundingDINO (Apache-2.0), line by line but for its comments and asserts. Its
constructor is written for the 80 categories of COCO: positive_map() below does the same for any labels.
"""

import torch
from groundingdino.util import box_ops
from groundingdino.util.vl_utils import build_captions_and_token_span, create_positive_map_from_span
from torch import Tensor
from transformers import BertTokenizerFast

__all__ = ["PostProcessCocoGrounding", "positive_map"]


class PostProcessCocoGrounding:
    """The original's class, given the positive map float32 [L, 256] that its constructor builds."""

    def __init__(self, num_select: int, positive_map: Tensor) -> None:
        self.num_select = num_select
        self.positive_map = positive_map

    @torch.no_grad()
    def forward(self, outputs, target_sizes, not_to_xyxy=False):  # type: ignore[no-untyped-def]
        """The best pairs of query and label; target_sizes are heights and widths [B, 2] in pixels."""
        num_select = self.num_select
        out_logits, out_bbox = outputs["pred_logits"], outputs["pred_boxes"]

        prob_to_token = out_logits.sigmoid()
        pos_maps = self.positive_map.to(prob_to_token.device)
        prob_to_label = prob_to_token @ pos_maps.T

        prob = prob_to_label
        topk_values, topk_indexes = torch.topk(prob.view(out_logits.shape[0], -1), num_select, dim=1)
        scores = topk_values
        topk_boxes = topk_indexes // prob.shape[2]
        labels = topk_indexes % prob.shape[2]

        if not_to_xyxy:  # noqa: SIM108
            boxes = out_bbox
        else:
            boxes = box_ops.box_cxcywh_to_xyxy(out_bbox)

        boxes = torch.gather(boxes, 1, topk_boxes.unsqueeze(-1).repeat(1, 1, 4))

        img_h, img_w = target_sizes.unbind(1)
        scale_fct = torch.stack([img_w, img_h, img_w, img_h], dim=1)
        boxes = boxes * scale_fct[:, None, :]

        results = [{"scores": s, "labels": l, "boxes": b} for s, l, b in zip(scores, labels, boxes)]  # noqa: B905, E741

        return results


def positive_map(labels: list[str], tokenizer: BertTokenizerFast) -> tuple[Tensor, list[int]]:
    """Weights float32 [L, 256] of the tokens for each label, and the token ids of the caption of all labels.

    The original finds the span of a label by its lower-cased text, so that equal labels share the last one's.
    """
    caption, spans = build_captions_and_token_span(labels, True)
    tokenized = tokenizer(caption)
    # The original looks up the label as it is written, and fails at a capital letter.
    weights: Tensor = create_positive_map_from_span(tokenized, [spans[label.lower()] for label in labels])
    return weights, tokenized["input_ids"]
