"""Phrases, labels, scores and boxes are those of the original's post-processing, run on the same logits.

What differs by design, beside the order of a caption's detections (here by falling score):

- The original keeps 300 pairs of query and label, however low they score; ours are above a threshold, 0 here.
- It finds a label by its text, so that equal labels share the tokens of the last; ours have their own each.
- It leaves out all but the first token of a label's last character, where that has several, as Hangul has.
- It fails at a capital letter in a label, takes one part of "hot/cold" by chance, and does not clip boxes.
"""

import numpy as np
import numpy.typing as npt
import pytest

from gdino_core.detections import DetectionOptions, postprocess
from gdino_core.prompt import EncodedPrompt, encode_prompt
from tests.core.goldens import Case, caption_cases, read_golden, with_ids
from tests.reference.logits import draw_outputs

BUCKETS = (16, 32, 64, 128, 256)
LABELS = read_golden("labels")
FloatArray = npt.NDArray[np.float32]


def outputs(prompt: EncodedPrompt, seed: int) -> tuple[FloatArray, FloatArray]:
    """Return the logits and boxes that the original was given; padding scores high, as a trap."""
    drawn, boxes_cxcywh = draw_outputs(seed, prompt.num_tokens)
    logits = np.full((len(drawn), len(prompt.input_ids)), 9, dtype=np.float32)
    logits[:, : prompt.num_tokens] = drawn
    return logits, boxes_cxcywh


@pytest.mark.parametrize("case", caption_cases("predict"))
def test_phrases_are_those_of_predict_character_for_character(case: Case) -> None:
    prompt = encode_prompt((case["caption"],), BUCKETS)
    logits, boxes_cxcywh = outputs(prompt, case["seed"])
    scores = 1 / (1 + np.exp(-logits[:, : prompt.num_tokens].max(axis=1).astype(float)))
    assert len(case["answers"]) == 6
    for box_threshold, text_threshold, remove_combined, phrases in case["answers"]:
        options = DetectionOptions(
            box_threshold=box_threshold, text_threshold=text_threshold, remove_combined=remove_combined
        )
        found = postprocess(logits, boxes_cxcywh, prompt, (480, 640), options)
        kept = np.flatnonzero(scores > box_threshold)
        expected = dict(zip(kept.tolist(), phrases, strict=True))
        by_score = sorted(expected, key=lambda query: -scores[query])
        assert found.labels == [expected[query] for query in by_score]
        np.testing.assert_allclose(found.scores, scores[by_score], atol=1e-6)


@pytest.mark.parametrize("case", with_ids([case for case in LABELS["cases"] if case["kind"] != "hangul"]))
def test_labels_scores_and_boxes_are_those_of_the_coco_postprocessing(case: Case) -> None:
    labels = case["labels"]
    prompt = encode_prompt(tuple(labels), BUCKETS)
    assert prompt.input_ids[: prompt.num_tokens].tolist() == case["input_ids"]
    logits, boxes_cxcywh = outputs(prompt, case["seed"])
    options = DetectionOptions(box_threshold=0.0, max_detections=len(logits) * len(labels))
    found = postprocess(logits, boxes_cxcywh, prompt, tuple(LABELS["image_hw"]), options)
    # Of equal labels the original scores the last one's tokens.
    last = {label.lower(): index for index, label in enumerate(labels)}
    assert [list(prompt.spans[last[label.lower()]]) for label in labels] == case["tokens"]
    ours = np.flatnonzero(np.isin(found.label_index, list(last.values())))[: len(case["scores"])]
    assert found.label_index[ours].tolist() == case["label_index"]
    assert [found.labels[index] for index in ours] == [labels[index] for index in case["label_index"]]
    np.testing.assert_allclose(found.scores[ours], case["scores"], atol=2e-7)
    height, width = LABELS["image_hw"]
    clipped = np.clip(case["boxes"], 0, [width, height, width, height])
    np.testing.assert_allclose(found.boxes_xyxy[ours], clipped, atol=1e-4)


@pytest.mark.parametrize("case", with_ids([case for case in LABELS["cases"] if case["kind"] == "hangul"]))
def test_a_label_in_hangul_has_all_its_tokens_where_the_original_drops_some(case: Case) -> None:
    prompt = encode_prompt(tuple(case["labels"]), BUCKETS)
    assert [start for start, _ in prompt.spans] == [start for start, _ in case["tokens"]]
    dropped = [end - original for (_, end), (_, original) in zip(prompt.spans, case["tokens"], strict=True)]
    assert min(dropped) >= 0
    assert max(dropped) > 0


def test_equal_labels_are_scored_by_their_own_tokens() -> None:
    prompt = encode_prompt(("cat", "cat"), BUCKETS)  # [CLS] cat . cat . [SEP]
    logits = np.full((1, 16), -9, dtype=np.float32)
    logits[0, 1] = 2
    found = postprocess(logits, np.full((1, 4), 0.5, dtype=np.float32), prompt, (9, 9), DetectionOptions())
    assert found.label_index.tolist() == [0]
