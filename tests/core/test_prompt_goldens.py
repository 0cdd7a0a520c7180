"""Captions are read as the original groundingdino package reads them; its answers are in tests/goldens/prompts.json."""

import numpy as np
import pytest

from gdino_core.errors import PromptError
from gdino_core.prompt import encode_prompt, load_tokenizer, preprocess_caption
from tests.core.goldens import Case, caption_cases

BUCKETS = (16, 32, 64, 128, 256)
CASES = caption_cases("prompts")
FITTING = [case for case in CASES if case.values[0]["num_tokens"] <= 256]
TOO_LONG = [case for case in CASES if case.values[0]["num_tokens"] > 256]


@pytest.mark.parametrize("case", FITTING)
def test_tokens_positions_and_phrases_are_the_originals(case: Case) -> None:
    prompt = encode_prompt((case["caption"],), BUCKETS)
    assert (prompt.labels, prompt.spans) == (None, ())
    count = prompt.num_tokens
    assert prompt.input_ids[:count].tolist() == case["input_ids"]
    assert prompt.position_ids[:count].tolist() == case["position_ids"]
    # Equal numbers are the original's attention mask: make_prompt_goldens checks that it is such a partition.
    numbers = np.unique(prompt.phrase_ids[:count], return_inverse=True)[1]
    assert numbers.tolist() == case["phrase_ids"]


@pytest.mark.parametrize("case", TOO_LONG)
def test_a_caption_that_the_original_cuts_is_refused_with_its_length(case: Case) -> None:
    with pytest.raises(PromptError) as caught:
        encode_prompt((case["caption"],), BUCKETS)
    assert f"PROMPT has {case['num_tokens']} tokens with [CLS] and [SEP], the limit is 256" in str(caught.value)
    assert caught.value.fix == "shorten the caption"
    # Only the cut differs: the original reads the same tokens, without the last ones and [SEP].
    token_ids = load_tokenizer().encode(preprocess_caption(case["caption"])).ids
    assert case["input_ids"] == [101, *token_ids[:255]]
    assert case["num_tokens"] == len(token_ids) + 2


def test_there_are_goldens_at_both_sides_of_the_limit() -> None:
    assert {255, 256, 257} <= {case.values[0]["num_tokens"] for case in CASES}
    assert len(CASES) >= 300
