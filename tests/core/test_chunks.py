"""Labels of any number are asked for in as few prompts as hold them, none lost and none changed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdino_core.chunks import encode_chunks
from gdino_core.contract import MAX_TOKENS
from gdino_core.detections import DetectionOptions, postprocess, postprocess_chunks
from gdino_core.errors import PromptError
from gdino_core.prompt import encode_prompt

BUCKETS = (16, 32, 64, 128, 256)
MAX_PROMPTS = 64
LVIS_SIZED = tuple(f"{noun} number {index}" for index in range(401) for noun in ("cat", "traffic light", "Straße ü"))


def test_labels_that_fit_are_one_prompt_as_before() -> None:
    labels = tuple(f"thing {index}" for index in range(50))
    [prompt] = encode_chunks(labels, BUCKETS, MAX_PROMPTS)
    before = encode_prompt(labels, BUCKETS)
    for name in ("input_ids", "position_ids", "phrase_ids"):
        np.testing.assert_array_equal(getattr(prompt, name), getattr(before, name))
    assert (prompt.labels, prompt.spans) == (before.labels, before.spans)


def test_1203_labels_are_in_few_equally_long_prompts() -> None:
    prompts = encode_chunks(LVIS_SIZED, BUCKETS, MAX_PROMPTS)
    assert tuple(label for prompt in prompts for label in prompt.labels or ()) == LVIS_SIZED
    assert {len(prompt.input_ids) for prompt in prompts} == {256}
    tokens = [prompt.num_tokens - 2 for prompt in prompts]
    assert len(prompts) <= sum(tokens) / (MAX_TOKENS - 2) + 1
    assert max(tokens) - min(tokens[:-1]) < 10  # no more than a label


label_texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(lambda text: bool(encode_ids(text)))


def encode_ids(text: str) -> list[int]:
    try:
        prompt = encode_prompt((text, "cat"), (256,))
    except PromptError:
        return []
    start, end = prompt.spans[0]
    return prompt.input_ids[start:end].tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(label_texts, min_size=2, max_size=80), st.sampled_from([(16, 64), (64,), (16, 32, 128)]))
def test_every_label_keeps_its_tokens_wherever_it_is_split(labels: list[str], buckets: tuple[int, ...]) -> None:
    try:
        prompts = encode_chunks(tuple(labels), buckets, MAX_PROMPTS)
    except PromptError as error:
        assert "alone has" in str(error)  # longer than the largest of these buckets
        return
    found = [
        (label, prompt.input_ids[start:end].tolist())
        for prompt in prompts
        for label, (start, end) in zip(prompt.labels or (), prompt.spans, strict=True)
    ]
    assert found == [(label, encode_ids(label)) for label in labels]
    assert len({len(prompt.input_ids) for prompt in prompts}) == 1


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ((" . ".join(["remote control"] * 100),), r"PROMPT has \d+ tokens .* the limit is 256\n  fix: shorten"),
        (("cat", "very " * 300), r"PROMPT\[1\] alone has 300 tokens, the limit for a label is 253: 'very"),
        (tuple(f"a label {index}" for index in range(5000)), rf"the limit is {MAX_PROMPTS}\n  fix: split the labels"),
        (("cat", ""), r"PROMPT\[1\] has no token: ''"),
        ((), "PROMPT is empty"),
        (("cat", "x" * 20_000), "an element of PROMPT has 20000 characters, the limit is 16384"),
        (("long word " * 1_600,) * 20, "PROMPT has 320000 characters"),
    ],
)
def test_what_cannot_be_asked_for_is_told_with_its_limit(texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        encode_chunks(texts, BUCKETS, MAX_PROMPTS)


def logits_for(prompts: tuple[object, ...], queries: int, tokens: int) -> np.ndarray:
    return np.random.default_rng(0).normal(-3, 2, (len(prompts), queries, tokens)).astype(np.float32)


@pytest.mark.parametrize(
    "options", [{}, {"nms_iou": 0.5}, {"max_detections": 7}, {"nms_iou": 0.3, "max_detections": 20}]
)
def test_detections_are_those_of_each_prompt_put_together(options: dict[str, float]) -> None:
    labels = tuple(f"thing {index}" for index in range(150))
    prompts = encode_chunks(labels, BUCKETS, MAX_PROMPTS)
    assert len(prompts) > 1
    logits = logits_for(prompts, 30, len(prompts[0].input_ids))
    rng = np.random.default_rng(1)
    boxes = rng.uniform(0.2, 0.8, (len(prompts), 30, 4)).astype(np.float32)
    found = postprocess_chunks(
        logits,
        boxes,
        prompts,
        (100, 200),
        DetectionOptions(box_threshold=0.2, **options),  # type: ignore[arg-type]
    )
    apart, offset = [], 0
    for row, prompt in enumerate(prompts):
        every = DetectionOptions(box_threshold=0.2, max_detections=10_000, nms_iou=options.get("nms_iou"))
        one = postprocess(logits[row], boxes[row], prompt, (100, 200), every)
        apart += [
            (-score, offset + index, label, *box)
            for score, index, label, box in zip(
                one.scores.tolist(), one.label_index.tolist(), one.labels, one.boxes_xyxy.tolist(), strict=True
            )
        ]
        offset += len(prompt.labels or ())
    expected = sorted(apart)[: options.get("max_detections", 300)]
    got = sorted(
        (-score, index, label, *box)
        for score, index, label, box in zip(
            found.scores.tolist(), found.label_index.tolist(), found.labels, found.boxes_xyxy.tolist(), strict=True
        )
    )
    assert got == expected
    assert [labels[index] for index in found.label_index] == found.labels
