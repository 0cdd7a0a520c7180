"""Prompts are encoded as the original encodes them; test_prompt_goldens.py compares with the original itself."""

import hashlib
from importlib import resources

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdino_core.errors import PromptError
from gdino_core.prompt import EncodedPrompt, decode_tokens, encode_prompt, load_tokenizer, prompt_from_bytes

BUCKETS = (16, 32, 64, 128, 256)

# From transformers 4.57.6, BertTokenizerFast.decode() on the shipped vocabulary, with clean_up_tokenization_spaces.
DECODED = [
    (
        [101, 2158, 1005, 1055, 3899, 1010, 2123, 1005, 1056, 999, 1000, 9339, 1000, 102],
        "[CLS] man's dog, don't! \" quoted \" [SEP]",
    ),
    ([2969, 1011, 4439, 1015, 1012, 1019, 3765, 1029], "self - driving 1. 5 cars?"),
    ([1045, 1005, 1049, 2002, 1005, 2222, 2079, 2025, 2057, 1005, 2310], "i'm he'll do not we've"),
    ([10521, 4355, 7875], "##disestab"),
    ([1012, 102], ". [SEP]"),
    ([], ""),
]


def real_ids(prompt: EncodedPrompt) -> list[int]:
    return [int(token_id) for token_id in prompt.input_ids[: prompt.num_tokens]]


def original_mask_and_positions(token_ids: list[int]) -> tuple[npt.NDArray[np.bool_], list[int]]:
    """Follow bertwarper.py, generate_masks_with_special_tokens_and_transfer_map(), for one caption."""
    count = len(token_ids)
    mask = np.eye(count, dtype=bool)
    positions = [0] * count
    previous = 0
    for column in (index for index, token_id in enumerate(token_ids) if token_id in (101, 102, 1012, 1029)):
        if column not in (0, count - 1):
            mask[previous + 1 : column + 1, previous + 1 : column + 1] = True
            positions[previous + 1 : column + 1] = range(column - previous)
        previous = column
    return mask, positions


def check_as_the_original(prompt: EncodedPrompt) -> None:
    mask, positions = original_mask_and_positions(real_ids(prompt))
    real = prompt.phrase_ids[: prompt.num_tokens]
    np.testing.assert_array_equal(real[:, None] == real[None, :], mask)
    assert prompt.position_ids[: prompt.num_tokens].tolist() == positions
    assert real[0] == 0
    assert (np.diff(real) >= 0).all()
    # Padding sees only itself and is told by its sign.
    padding = prompt.phrase_ids[prompt.num_tokens :]
    assert padding.tolist() == list(range(-1, -1 - len(padding), -1))
    assert not prompt.position_ids[prompt.num_tokens :].any()
    assert not prompt.input_ids[prompt.num_tokens :].any()
    for array in (prompt.input_ids, prompt.position_ids, prompt.phrase_ids):
        assert array.dtype == np.int32
        assert len(array) in BUCKETS


def test_the_shipped_vocabulary_is_bert_base_uncased() -> None:
    data = (resources.files("gdino_core") / "vocab.txt").read_bytes()
    assert len(data) == 231_508
    assert hashlib.md5(data, usedforsecurity=False).hexdigest() == "64800d5d8528ce344256daf115d4965e"
    assert load_tokenizer().get_vocab_size() == 30_522


@pytest.mark.parametrize(("token_ids", "expected"), DECODED)
def test_tokens_are_joined_as_transformers_joins_them(token_ids: list[int], expected: str) -> None:
    assert decode_tokens(token_ids) == expected


def test_a_phrase_ends_with_its_dot_and_positions_restart() -> None:
    prompt = encode_prompt(("cat . remote control ? dog",), (16,))
    #                          [CLS] cat . remote control ? dog . [SEP]
    assert prompt.phrase_ids.tolist() == [0, 1, 1, 2, 2, 2, 3, 3, 4, -1, -2, -3, -4, -5, -6, -7]
    assert prompt.position_ids.tolist() == [0, 0, 1, 0, 1, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]


@given(st.text(st.sampled_from("ab.?! \u00e9\u5317'-"), max_size=80))
def test_every_caption_has_the_masks_and_positions_of_the_original(caption: str) -> None:
    check_as_the_original(encode_prompt((caption,), BUCKETS))


def test_labels_are_returned_verbatim_with_the_tokens_of_each() -> None:
    prompt = encode_prompt(("  Cat", "Remote CONTROL"), BUCKETS)
    assert real_ids(prompt) == [101, 4937, 1012, 6556, 2491, 1012, 102]
    assert prompt.labels == ("  Cat", "Remote CONTROL")
    assert prompt.spans == ((1, 2), (3, 5))
    check_as_the_original(prompt)


def test_labels_that_are_equal_or_part_of_each_other_keep_their_own_tokens() -> None:
    prompt = encode_prompt(("cat", "cat", "remote", "remote control"), BUCKETS)
    assert prompt.spans == ((1, 2), (3, 4), (5, 6), (7, 9))


def test_a_dot_inside_a_label_splits_its_phrase_but_not_its_span() -> None:
    prompt = encode_prompt(("st. bernard?", "cat"), BUCKETS)
    tokens = [load_tokenizer().id_to_token(token_id) for token_id in real_ids(prompt)]
    assert tokens == ["[CLS]", "st", ".", "bernard", "?", ".", "cat", ".", "[SEP]"]
    assert prompt.phrase_ids[:9].tolist() == [0, 1, 1, 2, 2, 3, 4, 4, 5]
    assert prompt.spans == ((1, 5), (6, 7))
    check_as_the_original(prompt)


def test_a_label_is_lower_cased_as_a_caption_is() -> None:
    # The final sigma again; the tokenizer alone would give another token.
    prompt = encode_prompt(("\u0391\u03a3", "cat"), BUCKETS)
    assert real_ids(prompt) == [101, 1155, 19579, 1012, 4937, 1012, 102]


@given(st.lists(st.text(st.sampled_from("abAB.? \u00e9\u5317"), max_size=12), min_size=2, max_size=8))
def test_labels_give_the_tokens_of_the_caption_that_joins_them(labels: list[str]) -> None:
    if not all(label.strip() for label in labels):
        with pytest.raises(PromptError, match="has no token"):
            encode_prompt(tuple(labels), BUCKETS)
        return
    prompt = encode_prompt(tuple(labels), BUCKETS)
    joined = encode_prompt((" . ".join(labels) + " .",), BUCKETS)
    assert real_ids(prompt) == real_ids(joined)
    np.testing.assert_array_equal(prompt.phrase_ids, joined.phrase_ids)
    for label, (start, end) in zip(labels, prompt.spans, strict=True):
        assert load_tokenizer().encode(label).ids == prompt.input_ids[start:end].tolist()
        assert prompt.input_ids[end] == 1012
    check_as_the_original(prompt)


@pytest.mark.parametrize("label", ["", "   ", "\u200b", "\x00\x07"])
def test_a_label_without_a_token_is_named_by_its_index(label: str) -> None:
    with pytest.raises(PromptError, match=r"PROMPT\[1\] has no token: "):
        encode_prompt(("cat", label), BUCKETS)


@pytest.mark.parametrize(("words", "bucket"), [(13, 16), (14, 32), (61, 64), (253, 256)])
def test_the_smallest_bucket_that_holds_the_prompt_is_taken(words: int, bucket: int) -> None:
    prompt = encode_prompt((" ".join(["cat"] * words),), BUCKETS)  # [CLS], the words, ".", [SEP]
    assert prompt.num_tokens == words + 3
    assert len(prompt.phrase_ids) == bucket


def test_a_caption_of_257_tokens_is_refused_where_the_original_cuts_it() -> None:
    with pytest.raises(PromptError, match=r"has 257 tokens .* the limit is 256\n  fix: shorten the caption"):
        encode_prompt((" ".join(["cat"] * 254),), BUCKETS)


@pytest.mark.parametrize(("count", "fitting"), [(127, None), (128, 127), (300, 127)])
def test_too_many_labels_are_refused_with_how_many_fit(count: int, fitting: int | None) -> None:
    labels = ("cat",) * count
    if fitting is None:
        assert encode_prompt(labels, BUCKETS).num_tokens == 256
        return
    with pytest.raises(PromptError, match=f"the first {fitting} of {count} labels fit\n  fix: split"):
        encode_prompt(labels, BUCKETS)


def test_a_label_fits_only_with_its_dot_and_the_final_sep() -> None:
    # Six labels take 15 of the 16 tokens; the seventh would fit, its "." would not leave room for [SEP].
    labels = ("remote control", *["cat"] * 9)
    assert encode_prompt(labels[:6], (16,)).num_tokens == 15
    with pytest.raises(PromptError, match="the first 6 of 10 labels fit"):
        encode_prompt(labels, (16,))


def test_a_server_with_small_buckets_says_its_own_limit() -> None:
    with pytest.raises(PromptError, match=r"has 18 tokens .* the limit is 16"):
        encode_prompt(("cat " * 15,), (16,))


def test_no_text_at_all_is_refused() -> None:
    with pytest.raises(PromptError, match="PROMPT is empty"):
        encode_prompt((), BUCKETS)


def test_endless_text_is_refused_before_it_is_tokenised() -> None:
    with pytest.raises(PromptError, match="has 20000 characters, the limit is 16384"):
        encode_prompt(("x" * 20_000,), BUCKETS)


def test_a_lone_surrogate_is_a_prompt_error() -> None:
    with pytest.raises(PromptError, match=r"PROMPT\[1\] has a lone surrogate at character 2"):
        encode_prompt(("cat", "do\ud800g"), BUCKETS)


def test_bytes_that_are_not_utf8_are_named_by_index_and_offset() -> None:
    assert prompt_from_bytes([b"caf\xc3\xa9", b"dog"]) == ("caf\u00e9", "dog")
    with pytest.raises(PromptError, match=r"PROMPT\[1\] is not UTF-8: byte 0xe9 at offset 3"):
        prompt_from_bytes([b"dog", b"caf\xe9"])


def test_a_cached_prompt_cannot_be_changed_by_one_request_for_another() -> None:
    prompt = encode_prompt(("cat",), BUCKETS)
    assert encode_prompt(("cat",), BUCKETS) is prompt
    for array in (prompt.input_ids, prompt.position_ids, prompt.phrase_ids):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7


@settings(max_examples=200)
@given(st.lists(st.text(), max_size=4))
def test_any_text_is_encoded_or_refused_with_a_sentence(texts: list[str]) -> None:
    try:
        prompt = encode_prompt(tuple(texts), BUCKETS)
    except PromptError as error:
        assert error.fix
    else:
        check_as_the_original(prompt)
