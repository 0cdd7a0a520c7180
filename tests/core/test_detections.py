"""Detections are those of the original, in pixels and by falling score."""

import math
import re
from bisect import bisect_left
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gdino_core.detections import DetectionOptions, boxes_to_pixels, nms, postprocess, sigmoid
from gdino_core.errors import ConfigError, ServerError, ThresholdError
from gdino_core.prompt import EncodedPrompt, decode_tokens, encode_prompt

FloatArray = npt.NDArray[np.float32]
BOX = (0.5, 0.5, 0.2, 0.4)


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def make_logits(prompt: EncodedPrompt, rows: list[dict[int, float]]) -> FloatArray:
    """Give each query the probabilities named by token, 0.01 to the others, and 0.99 to padding as a trap."""
    logits = np.full((len(rows), len(prompt.input_ids)), logit(0.01), dtype=np.float32)
    logits[:, prompt.num_tokens :] = logit(0.99)
    for row, probabilities in zip(logits, rows, strict=True):
        for token, probability in probabilities.items():
            row[token] = logit(probability)
    return logits


def make_boxes(count: int) -> FloatArray:
    return np.tile(np.array(BOX, dtype=np.float32), (count, 1))


def random_outputs(prompt: EncodedPrompt, count: int, seed: int) -> tuple[FloatArray, FloatArray]:
    generator = np.random.default_rng(seed)
    logits = generator.normal(-1, 2, (count, len(prompt.input_ids))).astype(np.float32)
    logits[:, prompt.num_tokens :] = -1e4
    return logits, generator.uniform(0, 1, (count, 4)).astype(np.float32)


def assume_distinct(values: list[float], *thresholds: float) -> None:
    """Leave out examples in which float32 could order two values, or a value and a threshold, otherwise."""
    assume(bool((np.diff(np.sort([*values, *thresholds])) > 1e-6).all()))


def original_phrases(logits: FloatArray, prompt: EncodedPrompt, options: DetectionOptions) -> list[tuple[float, str]]:
    """Follow util/inference.py, predict(), token by token; pairs of score and phrase, by query."""
    token_ids = prompt.input_ids[: prompt.num_tokens].tolist()
    separators = [index for index, token_id in enumerate(token_ids) if token_id in (101, 102, 1012)]
    found = []
    for row in logits:
        probabilities = [1 / (1 + math.exp(-value)) for value in row[: len(token_ids)].astype(float).tolist()]
        best = probabilities.index(max(probabilities))
        if probabilities[best] <= options.box_threshold:
            continue
        left, right = 0, 255
        if options.remove_combined:
            insert = bisect_left(separators, best)
            left, right = separators[insert - 1], separators[insert]
        kept = [
            token_id
            for index, token_id in enumerate(token_ids)
            if left < index < right and probabilities[index] > options.text_threshold
        ]
        found.append((probabilities[best], decode_tokens(kept).replace(".", "")))
    return found


def test_a_caption_detection_is_named_by_its_tokens_above_the_text_threshold() -> None:
    prompt = encode_prompt(("cat . remote control .",), (16,))
    #                  [CLS] 0, cat 1, . 2, remote 3, control 4, . 5, [SEP] 6
    rows = [{3: 0.6, 4: 0.3}, {1: 0.9}, {1: 0.5, 4: 0.4, 5: 0.26}, {1: 0.34}, {0: 0.9, 6: 0.3}]
    found = postprocess(make_logits(prompt, rows), make_boxes(5), prompt, (100, 200), DetectionOptions())
    assert found.labels == ["cat", "[SEP]", "remote control", "cat control"]
    np.testing.assert_allclose(found.scores, [0.9, 0.9, 0.6, 0.5], atol=1e-6)
    assert found.label_index.tolist() == [-1, -1, -1, -1]
    np.testing.assert_allclose(found.boxes_xyxy, [[80, 30, 120, 70]] * 4, atol=1e-4)


def test_remove_combined_keeps_the_phrase_of_the_best_token() -> None:
    prompt = encode_prompt(("cat . remote control .",), (16,))
    logits = make_logits(prompt, [{1: 0.4, 3: 0.5, 4: 0.6}])
    options = DetectionOptions(remove_combined=True)
    assert postprocess(logits, make_boxes(1), prompt, (9, 9), options).labels == ["remote control"]
    assert postprocess(logits, make_boxes(1), prompt, (9, 9), DetectionOptions()).labels == ["cat remote control"]


def test_a_phrase_without_a_token_above_the_text_threshold_is_empty() -> None:
    prompt = encode_prompt(("cat",), (16,))
    options = DetectionOptions(box_threshold=0.3, text_threshold=0.5)
    found = postprocess(make_logits(prompt, [{1: 0.4}]), make_boxes(1), prompt, (9, 9), options)
    assert found.labels == [""]


@pytest.mark.parametrize("texts", [("cat dog",), ("cat dog", "remote")])
def test_a_score_must_be_above_its_threshold_not_at_it(texts: tuple[str, ...]) -> None:
    prompt = encode_prompt(texts, (16,))
    logits = np.full((1, 16), -1e4, dtype=np.float32)
    logits[0, 1:3] = (0.0, 1.0)  # sigmoid(0) is 0.5 exactly
    options = DetectionOptions(box_threshold=0.4, text_threshold=0.5)
    found = postprocess(logits, make_boxes(1), prompt, (9, 9), options)
    assert found.labels == ["dog" if len(texts) == 1 else "cat dog"]
    at_score = DetectionOptions(box_threshold=float(found.scores[0]))
    assert postprocess(logits, make_boxes(1), prompt, (9, 9), at_score).labels == []


def test_in_a_caption_of_256_tokens_the_original_ignores_the_last() -> None:
    prompt = encode_prompt(("cat " * 253,), (256,))
    logits = make_logits(prompt, [{253: 0.9, 255: 0.9}])
    assert prompt.num_tokens == 256
    assert postprocess(logits, make_boxes(1), prompt, (9, 9), DetectionOptions()).labels == ["cat"]


@pytest.mark.parametrize("remove_combined", [False, True])
@pytest.mark.parametrize("caption", ["cat . remote control .", "what's this? a st. bernard", "...", ""])
@given(seed=st.integers(0, 2**31))
def test_caption_detections_equal_the_originals_by_falling_score(
    caption: str, remove_combined: bool, seed: int
) -> None:
    prompt = encode_prompt((caption,), (16, 32))
    logits, boxes = random_outputs(prompt, 20, seed)
    options = DetectionOptions(remove_combined=remove_combined)
    found = postprocess(logits, boxes, prompt, (480, 640), options)
    assume_distinct(sigmoid(logits).max(axis=1).tolist(), options.box_threshold)
    expected = sorted(original_phrases(logits, prompt, options), key=lambda pair: -pair[0])
    np.testing.assert_allclose(found.scores, [score for score, _ in expected], atol=1e-6)
    assert found.labels == [phrase for _, phrase in expected]


def test_a_label_scores_the_mean_over_its_own_tokens() -> None:
    prompt = encode_prompt(("Cat", "remote control"), (16,))
    rows = [{3: 0.9, 4: 0.5}, {1: 0.8}, {1: 0.5, 3: 0.6, 4: 0.6}, {3: 0.6}]
    found = postprocess(make_logits(prompt, rows), make_boxes(4), prompt, (9, 9), DetectionOptions())
    assert found.labels == ["Cat", "remote control", "remote control", "Cat"]
    assert found.label_index.tolist() == [0, 1, 1, 0]
    np.testing.assert_allclose(found.scores, [0.8, 0.7, 0.6, 0.5], atol=2e-6)


@given(seed=st.integers(0, 2**31), max_detections=st.integers(1, 70))
def test_label_detections_equal_the_originals_coco_postprocessing(seed: int, max_detections: int) -> None:
    prompt = encode_prompt(("cat", "remote control", "st. bernard", "cat"), (16,))
    logits, boxes = random_outputs(prompt, 15, seed)
    options = DetectionOptions(max_detections=max_detections)
    found = postprocess(logits, boxes, prompt, (480, 640), options)
    # PostProcessCocoGrounding: the best pairs of query and label first, here then those above the threshold.
    pairs = []
    for query, row in enumerate(logits.astype(float).tolist()):
        for label, (start, end) in enumerate(prompt.spans):
            mean = sum(1 / (1 + math.exp(-value)) for value in row[start:end]) / (end - start + 1e-6)
            pairs.append((mean, query, label))
    assume_distinct([mean for mean, _, _ in pairs], options.box_threshold)
    best = sorted(pairs, key=lambda pair: -pair[0])[:max_detections]
    expected = [pair for pair in best if pair[0] > options.box_threshold]
    np.testing.assert_allclose(found.scores, [score for score, _, _ in expected], atol=1e-6)
    assert found.label_index.tolist() == [label for _, _, label in expected]
    pixels = boxes_to_pixels(boxes, (480, 640))
    np.testing.assert_array_equal(found.boxes_xyxy, pixels[[query for _, query, _ in expected]].reshape(-1, 4))


@pytest.mark.parametrize("texts", [("cat",), ("cat", "dog")])
def test_nothing_above_the_threshold_gives_empty_arrays_of_the_right_shape(texts: tuple[str, ...]) -> None:
    prompt = encode_prompt(texts, (16,))
    for nms_iou in (None, 0.5):
        options = DetectionOptions(nms_iou=nms_iou)
        found = postprocess(make_logits(prompt, [{}, {}]), make_boxes(2), prompt, (9, 9), options)
        assert found.boxes_xyxy.shape == (0, 4)
        assert (found.scores.shape, found.label_index.shape, found.labels) == ((0,), (0,), [])
        assert found.boxes_xyxy.dtype == found.scores.dtype == np.float32
        assert found.label_index.dtype == np.int32


@pytest.mark.parametrize("texts", [("cat",), ("cat", "dog")])
def test_the_best_are_kept_and_equal_scores_keep_the_detectors_order(texts: tuple[str, ...]) -> None:
    prompt = encode_prompt(texts, (16,))
    boxes = make_boxes(5)
    boxes[:, 0] = [0.1, 0.2, 0.3, 0.4, 0.5]
    rows = [{1: 0.5}, {1: 0.9}, {1: 0.5}, {1: 0.9}, {1: 0.6}]
    options = DetectionOptions(max_detections=4)
    found = postprocess(make_logits(prompt, rows), boxes, prompt, (10, 100), options)
    centres = found.boxes_xyxy[:, [0, 2]].mean(axis=1)
    np.testing.assert_allclose(centres, [20, 40, 50, 10], atol=1e-4)


def test_suppression_removes_the_worse_box_of_the_same_label_only() -> None:
    prompt = encode_prompt(("cat", "dog"), (16,))
    boxes = make_boxes(3)
    boxes[2, 0] += 0.15  # overlaps the others by a seventh
    logits = make_logits(prompt, [{1: 0.5, 3: 0.7}, {1: 0.9}, {1: 0.6}])

    def labels_and_scores(nms_iou: float | None) -> list[tuple[str, float]]:
        found = postprocess(logits, boxes, prompt, (100, 100), DetectionOptions(nms_iou=nms_iou))
        return [(label, round(score, 3)) for label, score in zip(found.labels, found.scores.tolist(), strict=True)]

    assert labels_and_scores(None) == [("cat", 0.9), ("dog", 0.7), ("cat", 0.6), ("cat", 0.5)]
    assert labels_and_scores(0.5) == [("cat", 0.9), ("dog", 0.7), ("cat", 0.6)]
    assert labels_and_scores(0.1) == [("cat", 0.9), ("dog", 0.7)]


def test_suppression_of_a_caption_ignores_the_phrases() -> None:
    prompt = encode_prompt(("cat . dog .",), (16,))
    logits = make_logits(prompt, [{1: 0.5}, {3: 0.9}])
    found = postprocess(logits, make_boxes(2), prompt, (9, 9), DetectionOptions(nms_iou=0.5))
    assert found.labels == ["dog"]


@given(seed=st.integers(0, 2**31), iou=st.floats(0.05, 1.0), limit=st.integers(1, 40))
def test_greedy_suppression_equals_the_definition(seed: int, iou: float, limit: int) -> None:
    generator = np.random.default_rng(seed)
    corners = generator.integers(0, 8, (30, 2))
    boxes = np.concatenate([corners, corners + generator.integers(0, 6, (30, 2))], axis=1).astype(np.float32)
    scores = generator.integers(1, 10, 30).astype(np.float32)  # with ties
    labels = generator.integers(0, 2, 30).astype(np.int32)

    def overlap(first: int, second: int) -> float:
        a, b = boxes[first].tolist(), boxes[second].tolist()
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
        union = areas - width * height
        return float(np.float32(width * height) / np.float32(union)) if union > 0 else 0.0

    expected: list[int] = []
    for index in sorted(range(30), key=lambda index: -scores[index]):
        if all(labels[index] != labels[kept] or overlap(index, kept) <= np.float32(iou) for kept in expected):
            expected.append(index)
    assert nms(boxes, scores, labels, iou, limit).tolist() == expected[:limit]


@given(
    st.lists(st.tuples(*[st.floats(0.0, 1.0, width=32)] * 4), min_size=1, max_size=5),
    st.integers(1, 4000),
    st.integers(1, 4000),
)
def test_boxes_inside_the_picture_survive_the_round_trip(
    corners: list[tuple[float, float, float, float]], height: int, width: int
) -> None:
    points = np.sort(np.array(corners, dtype=np.float32).reshape(-1, 2, 2), axis=1)  # [n, low/high, x/y]
    boxes_cxcywh = np.concatenate([points.mean(axis=1), points[:, 1] - points[:, 0]], axis=1)
    pixels = boxes_to_pixels(boxes_cxcywh, (height, width))
    expected = points.reshape(-1, 4) * np.array([width, height, width, height], dtype=np.float32)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, expected, atol=4000 * 1e-6)


def test_boxes_that_leave_the_picture_are_clipped_to_it() -> None:
    boxes = np.array([[0.0, 1.0, 0.5, 0.5], [0.5, 0.5, 2.0, 2.0]], dtype=np.float32)
    pixels = boxes_to_pixels(boxes, (100, 200))
    np.testing.assert_allclose(pixels, [[0, 75, 50, 100], [0, 0, 200, 100]])


def test_sigmoid_is_exact_at_the_ends_and_never_overflows() -> None:
    values = np.array([-np.inf, -1e4, -88.0, 0.0, 1e4, np.inf], dtype=np.float32)
    with np.errstate(over="raise", invalid="raise"):
        result = sigmoid(values)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, [0, 0, 1 / (1 + math.exp(88)), 0.5, 1, 1], rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"box_threshold": math.nan}, "BOX_THRESHOLD is nan"),
        ({"box_threshold": -0.1}, "BOX_THRESHOLD is -0.1"),
        ({"box_threshold": math.inf}, "BOX_THRESHOLD is inf"),
        ({"text_threshold": 1.01}, "TEXT_THRESHOLD is 1.01"),
        ({"text_threshold": -math.inf}, "TEXT_THRESHOLD is -inf"),
        ({"nms_iou": 0.0}, "NMS_IOU is 0.0"),
        ({"nms_iou": 1.5}, "NMS_IOU is 1.5"),
        ({"nms_iou": math.nan}, "NMS_IOU is nan"),
        ({"max_detections": 0}, "MAX_DETECTIONS is 0"),
        ({"max_detections": -5}, "MAX_DETECTIONS is -5"),
    ],
)
def test_options_out_of_range_are_refused_by_the_name_of_their_tensor(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ThresholdError, match=rf"{re.escape(message)}\n  fix: give "):
        replace(DetectionOptions(), **values)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_ends_of_the_range_are_allowed(value: float) -> None:
    assert DetectionOptions(box_threshold=value, text_threshold=value, nms_iou=1.0).nms_iou == 1.0


@pytest.mark.parametrize(("columns", "boxes"), [(32, 2), (16, 3)])
def test_outputs_of_another_text_bucket_are_refused(columns: int, boxes: int) -> None:
    prompt = encode_prompt(("cat",), (16,))
    logits = np.zeros((2, columns), dtype=np.float32)
    with pytest.raises(ConfigError, match=r"are not \[Q, 16\] and \[Q, 4\]"):
        postprocess(logits, make_boxes(boxes), prompt, (9, 9), DetectionOptions())


def test_a_detector_that_overflows_is_not_taken_for_an_empty_picture() -> None:
    prompt = encode_prompt(("cat",), (16,))
    logits, boxes = make_logits(prompt, [{}]), make_boxes(1)
    logits[0, 1] = np.nan
    with pytest.raises(ServerError, match="NaN or infinity"):
        postprocess(logits, boxes, prompt, (9, 9), DetectionOptions())
    boxes[0, 2] = np.inf
    with pytest.raises(ServerError, match="NaN or infinity"):
        postprocess(make_logits(prompt, [{}]), boxes, prompt, (9, 9), DetectionOptions())
