"""Turn the detector's logits and boxes into labelled boxes in pixels.

Source: GroundingDINO, groundingdino/util/inference.py, predict() for captions, and demo/test_ap_on_coco.py,
PostProcessCocoGrounding for labels.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gdino_core.contract import (
    DEFAULT_BOX_THRESHOLD,
    DEFAULT_MAX_DETECTIONS,
    DEFAULT_TEXT_THRESHOLD,
    MAX_TOKENS,
)
from gdino_core.errors import ConfigError, ServerError, ThresholdError
from gdino_core.prompt import CLS_ID, DOT_ID, SEP_ID, EncodedPrompt, decode_tokens

MAX_NMS_CANDIDATES: Final = 20_000

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class DetectionOptions:
    """What to keep of the detector's answer.

    Attributes:
        box_threshold: a detection's score must be above it; in [0, 1].
        text_threshold: a token must be above it to be part of a phrase (captions only); in [0, 1].
        nms_iou: drop a box that overlaps a better one of its label by more than this; in (0, 1], None for no
            suppression. Boxes of a caption count as one label.
        max_detections: how many to keep, 1 or more.
        remove_combined: keep of a phrase only the part around its best token (captions only).

    Raises:
        ThresholdError: a value is out of its range, or not a number.
    """

    box_threshold: float = DEFAULT_BOX_THRESHOLD
    text_threshold: float = DEFAULT_TEXT_THRESHOLD
    nms_iou: float | None = None
    max_detections: int = DEFAULT_MAX_DETECTIONS
    remove_combined: bool = False

    def __post_init__(self) -> None:
        """Check every value; the comparisons are written so that NaN fails them."""
        for name, value in (("BOX_THRESHOLD", self.box_threshold), ("TEXT_THRESHOLD", self.text_threshold)):
            if not 0.0 <= value <= 1.0:
                raise ThresholdError(f"{name} is {value}", fix="give a probability from 0 to 1")
        if self.nms_iou is not None and not 0.0 < self.nms_iou <= 1.0:
            raise ThresholdError(
                f"NMS_IOU is {self.nms_iou}",
                fix="give an overlap above 0 and up to 1, or leave it out for no suppression",
            )
        if not self.max_detections >= 1:
            raise ThresholdError(f"MAX_DETECTIONS is {self.max_detections}", fix="give 1 or more")


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionArrays:
    """Detections of one picture, by falling score.

    Attributes:
        boxes_xyxy: float32 [n, 4], x0, y0, x1, y1 in pixels of the original picture, clipped to it.
        scores: float32 [n] in [0, 1].
        labels: n texts: the label verbatim, or for a caption the phrase, which can be empty.
        label_index: int32 [n], index into the prompt's labels, -1 for a caption.
    """

    boxes_xyxy: FloatArray
    scores: FloatArray
    labels: list[str]
    label_index: npt.NDArray[np.int32]


def postprocess(
    logits: FloatArray,
    boxes_cxcywh: FloatArray,
    prompt: EncodedPrompt,
    image_hw: tuple[int, int],
    options: DetectionOptions,
) -> DetectionArrays:
    """Turn one picture's logits and boxes for one prompt into detections; see `postprocess_chunks`.

    Args:
        logits: float32 [Q, T].
        boxes_cxcywh: float32 [Q, 4].
        prompt: the encoded prompt.
        image_hw: height and width of the original picture, in pixels.
        options: what to keep.
    """
    return postprocess_chunks(logits[None], boxes_cxcywh[None], (prompt,), image_hw, options)


def postprocess_chunks(
    logits: FloatArray,
    boxes_cxcywh: FloatArray,
    prompts: Sequence[EncodedPrompt],
    image_hw: tuple[int, int],
    options: DetectionOptions,
) -> DetectionArrays:
    """Turn one picture's logits and boxes into detections.

    Args:
        logits: float32 [N, Q, T], a row for each prompt, T as in the prompts; what padding tokens have is ignored.
        boxes_cxcywh: float32 [N, Q, 4], centre x, centre y, width, height in [0, 1] of the unpadded picture.
        prompts: the encoded prompts that the logits are for: one caption, or labels in one prompt or more.
        image_hw: height and width of the original picture, in pixels.
        options: what to keep.

    Raises:
        ConfigError: the shapes do not belong together.
        ServerError: there is a NaN among the logits, or a NaN or infinity among the boxes.
    """
    if len(logits) != len(prompts) or len(boxes_cxcywh) != len(prompts):
        raise ConfigError(
            f"there are logits {list(logits.shape)} and boxes {list(boxes_cxcywh.shape)} for {len(prompts)} prompts",
            fix="give preprocess and postprocess the same text_buckets in config.pbtxt",
        )
    for row, prompt in enumerate(prompts):
        _check_model_outputs(logits[row], boxes_cxcywh[row], prompt)
    boxes_xyxy = boxes_to_pixels(boxes_cxcywh.reshape(-1, 4), image_hw).reshape(boxes_cxcywh.shape)
    if prompts[0].labels is None:
        return caption_detections(logits[0], boxes_xyxy[0], prompts[0], options)
    return label_detections(logits, boxes_xyxy, prompts, options)


def caption_detections(
    logits: FloatArray, boxes_xyxy: FloatArray, prompt: EncodedPrompt, options: DetectionOptions
) -> DetectionArrays:
    """Score each query by its best token, and name it by its tokens above the text threshold.

    Args:
        logits: float32 [Q, T].
        boxes_xyxy: float32 [Q, 4].
        prompt: an encoded caption.
        options: what to keep.

    Source: GroundingDINO, groundingdino/util/inference.py, predict(); sorted by score here.
    """
    probabilities = sigmoid(logits[:, : prompt.num_tokens])  # [Q,n]
    scores = probabilities.max(axis=1)  # [Q]
    queries = np.flatnonzero(scores > options.box_threshold)
    label_index = np.full(len(queries), -1, dtype=np.int32)
    queries = queries[_select(boxes_xyxy[queries], scores[queries], label_index, options)]
    return DetectionArrays(
        boxes_xyxy=boxes_xyxy[queries],
        scores=scores[queries],
        labels=[_phrase(probabilities[query], prompt, options) for query in queries],
        label_index=label_index[: len(queries)],
    )


def label_detections(
    logits: FloatArray, boxes_xyxy: FloatArray, prompts: Sequence[EncodedPrompt], options: DetectionOptions
) -> DetectionArrays:
    """Score each pair of query and label by the mean over the label's tokens; one query can give several.

    Args:
        logits: float32 [N, Q, T].
        boxes_xyxy: float32 [N, Q, 4].
        prompts: labels, encoded in one prompt or more, which count as one list. Of equal scores that of the earlier
            prompt, query and label comes first.
        options: what to keep.

    Source: GroundingDINO, demo/test_ap_on_coco.py, PostProcessCocoGrounding.forward().
    """
    rows, queries, found_scores, indices = [], [], [], []
    labels: list[str] = []
    for row, prompt in enumerate(prompts):
        pair_scores = _pair_scores(logits[row], prompt)  # [Q,L]
        query, label = np.nonzero(pair_scores > options.box_threshold)
        rows.append(np.full(len(query), row))
        queries.append(query)
        found_scores.append(pair_scores[query, label])
        indices.append((label + len(labels)).astype(np.int32))
        labels += prompt.labels or ()
    boxes = boxes_xyxy[np.concatenate(rows), np.concatenate(queries)]
    scores, label_index = np.concatenate(found_scores), np.concatenate(indices)
    kept = _select(boxes, scores, label_index, options)
    return DetectionArrays(
        boxes_xyxy=boxes[kept],
        scores=scores[kept],
        labels=[labels[index] for index in label_index[kept].tolist()],
        label_index=label_index[kept],
    )


def _pair_scores(logits: FloatArray, prompt: EncodedPrompt) -> FloatArray:
    """Scores of queries and labels, float32 [Q, L]."""
    token_weights = np.zeros((len(prompt.spans), prompt.num_tokens), dtype=np.float32)  # [L,n]
    for row, (start, end) in zip(token_weights, prompt.spans, strict=True):
        row[start:end] = 1
    # The 1e-6 is the original's: util/vl_utils.py, create_positive_map_from_span().
    token_weights /= token_weights.sum(axis=1, keepdims=True) + np.float32(1e-6)
    scores: FloatArray = sigmoid(logits[:, : prompt.num_tokens]) @ token_weights.T
    return scores


def sigmoid(logits: FloatArray) -> FloatArray:
    """Return 1 / (1 + exp(-x)) in float32, without overflow for any x."""
    exponential = np.exp(-np.abs(logits))
    numerator = np.where(logits >= 0, np.float32(1), exponential)
    probabilities: FloatArray = (numerator / (1 + exponential)).astype(np.float32, copy=False)
    return probabilities


def boxes_to_pixels(boxes_cxcywh: FloatArray, image_hw: tuple[int, int]) -> FloatArray:
    """Turn normalised centre boxes into pixel corner boxes.

    Args:
        boxes_cxcywh: float32 [n, 4], centre x, centre y, width, height in [0, 1] of the unpadded picture.
        image_hw: height and width of the original picture, in pixels.

    Returns:
        float32 [n, 4], x0, y0, x1, y1 in pixels, clipped to the picture.

    Source: GroundingDINO, groundingdino/util/inference.py, annotate(), which does not clip.
    """
    height, width = image_hw
    limits = np.array([width, height], dtype=np.float32)
    centres = boxes_cxcywh[:, :2] * limits
    halves = boxes_cxcywh[:, 2:] * limits / 2
    corners = np.stack([centres - halves, centres + halves], axis=1)  # [n,2,2]
    clipped: FloatArray = np.clip(corners, 0, limits).reshape(-1, 4).astype(np.float32, copy=False)
    return clipped


def nms(
    boxes_xyxy: FloatArray,
    scores: FloatArray,
    label_index: npt.NDArray[np.int32],
    iou_threshold: float,
    max_detections: int,
) -> IndexArray:
    """Suppress greedily the boxes that overlap a better box with the same label index.

    Args:
        boxes_xyxy: float32 [n, 4].
        scores: float32 [n].
        label_index: int32 [n].
        iou_threshold: a box goes when its intersection over union with a kept one is above this.
        max_detections: stop when so many are kept.

    Returns:
        Indices of the kept boxes, by falling score; of equal scores the first comes first. Only the best
        MAX_NMS_CANDIDATES boxes are looked at, which bounds what a request without a threshold costs.
    """
    kept: list[int] = []
    kept_by_label: dict[int, list[int]] = {}
    for index in np.argsort(-scores, kind="stable")[:MAX_NMS_CANDIDATES].tolist():
        rivals = kept_by_label.setdefault(int(label_index[index]), [])
        if rivals and (_iou(boxes_xyxy[index], boxes_xyxy[rivals]) > iou_threshold).any():
            continue
        rivals.append(index)
        kept.append(index)
        if len(kept) == max_detections:
            break
    return np.array(kept, dtype=np.intp)


def _select(
    boxes_xyxy: FloatArray, scores: FloatArray, label_index: npt.NDArray[np.int32], options: DetectionOptions
) -> IndexArray:
    if options.nms_iou is None:
        return np.argsort(-scores, kind="stable")[: options.max_detections]
    return nms(boxes_xyxy, scores, label_index, options.nms_iou, options.max_detections)


def _iou(box_xyxy: FloatArray, others_xyxy: FloatArray) -> FloatArray:
    overlap_wh = np.minimum(box_xyxy[2:], others_xyxy[:, 2:]) - np.maximum(box_xyxy[:2], others_xyxy[:, :2])
    intersection = np.maximum(overlap_wh, 0).prod(axis=1)
    union = (box_xyxy[2:] - box_xyxy[:2]).prod() + (others_xyxy[:, 2:] - others_xyxy[:, :2]).prod(axis=1)
    union -= intersection
    # Two boxes without area do not overlap, whatever 0 / 0 would say.
    overlaps: FloatArray = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return overlaps


def _phrase(probabilities: FloatArray, prompt: EncodedPrompt, options: DetectionOptions) -> str:
    # The tokens strictly between left and right, [SEP] among them if it scores.
    # Source: GroundingDINO, groundingdino/util/utils.py, get_phrases_from_posmap().
    left, right = 0, MAX_TOKENS - 1
    token_ids = prompt.input_ids[: prompt.num_tokens]
    if options.remove_combined:
        # "?" is not in the original's list here, though it ends a phrase.
        separators = np.flatnonzero(np.isin(token_ids, (CLS_ID, SEP_ID, DOT_ID))).tolist()
        insert = bisect_left(separators, int(probabilities.argmax()))
        left, right = separators[insert - 1], separators[insert]
    above = np.flatnonzero(probabilities > options.text_threshold)
    inside = above[(above > left) & (above < right)]
    return decode_tokens(token_ids[inside].tolist()).replace(".", "")


def _check_model_outputs(logits: FloatArray, boxes_cxcywh: FloatArray, prompt: EncodedPrompt) -> None:
    num_tokens = len(prompt.input_ids)
    if logits.ndim != 2 or logits.shape[1] != num_tokens or boxes_cxcywh.shape != (logits.shape[0], 4):
        raise ConfigError(
            f"logits {list(logits.shape)} and boxes {list(boxes_cxcywh.shape)} are not [Q, {num_tokens}] and [Q, 4]",
            fix="give preprocess and postprocess the same text_buckets in config.pbtxt",
        )
    # A masked logit may be -inf, a box has no use for infinity.
    if np.isnan(logits[:, : prompt.num_tokens]).any() or not np.isfinite(boxes_cxcywh).all():
        raise ServerError(
            "the detector answered NaN or infinity",
            fix="its precision overflows: check the engine with `make verify`",
        )
