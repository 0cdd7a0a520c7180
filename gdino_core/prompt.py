"""Turn a caption or a list of labels into token, position and phrase ids.

A phrase is a run of tokens up to and with its "." or "?"; tokens see only their own phrase.

Source: GroundingDINO, groundingdino/util/inference.py, preprocess_caption(), and
groundingdino/models/GroundingDINO/bertwarper.py, generate_masks_with_special_tokens_and_transfer_map().
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Final

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from gdino_core.contract import MAX_TOKENS
from gdino_core.errors import PromptError

CLS_ID: Final = 101
SEP_ID: Final = 102
DOT_ID: Final = 1012
QUESTION_MARK_ID: Final = 1029
PAD_ID: Final = 0
# The original lists [CLS] and [SEP] too, but a lower-cased text never yields them.
PHRASE_END_IDS: Final = frozenset({DOT_ID, QUESTION_MARK_ID})

# One word of any length is one [UNK] token, so the token limit alone bounds neither work nor cache.
MAX_TEXT_CHARACTERS: Final = 16_384  # of a caption or a label
MAX_PROMPT_CHARACTERS: Final = 16 * MAX_TEXT_CHARACTERS  # of all labels


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedPrompt:
    """A prompt as the model reads it; the arrays are read-only, because they are shared between requests.

    Attributes:
        input_ids: int32 [T], [CLS] ... [SEP], then padding (0).
        position_ids: int32 [T], restarting from 0 in every phrase; 0 for [CLS], [SEP] and padding.
        phrase_ids: int32 [T], [CLS] 0, phrases from 1, [SEP] the last, padding -1, -2, ...
        num_tokens: how many of the T are real, [CLS] and [SEP] included.
        labels: the labels verbatim, or None for a caption.
        spans: for each label its tokens [start, end) without the "." that was appended; empty for a caption.
    """

    input_ids: npt.NDArray[np.int32]
    position_ids: npt.NDArray[np.int32]
    phrase_ids: npt.NDArray[np.int32]
    num_tokens: int
    labels: tuple[str, ...] | None
    spans: tuple[tuple[int, int], ...]


@lru_cache(maxsize=1)
def load_tokenizer() -> Tokenizer:
    """Return the tokenizer of bert-base-uncased, made from the vocabulary that this package ships.

    It adds neither [CLS] nor [SEP], and does not take "[SEP]" in a text for one.
    """
    # Only "\n" ends a line: str.splitlines would also split at the Unicode separators among the tokens.
    lines = (resources.files("gdino_core") / "vocab.txt").read_text(encoding="utf-8").split("\n")
    vocabulary = {token: index for index, token in enumerate(lines) if token}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True
    )
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.decoder = WordPieceDecoder(prefix="##", cleanup=True)
    return tokenizer


def preprocess_caption(caption: str) -> str:
    """Lower-case and strip a caption, and end it with a ".".

    Source: GroundingDINO, groundingdino/util/inference.py, preprocess_caption().
    """
    result = caption.lower().strip()
    return result if result.endswith(".") else result + "."


def prompt_from_bytes(elements: Iterable[bytes]) -> tuple[str, ...]:
    """Decode the elements of a PROMPT tensor, UTF-8 each.

    Raises:
        PromptError: an element is not UTF-8; the message names its index.
    """
    texts: list[str] = []
    for index, element in enumerate(elements):
        try:
            texts.append(element.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise PromptError(
                f"PROMPT[{index}] is not UTF-8: byte 0x{element[error.start]:02x} at offset {error.start}",
                fix="encode the caption or the label as UTF-8",
            ) from error
    return tuple(texts)


@lru_cache(maxsize=256)
def encode_prompt(texts: tuple[str, ...], text_buckets: tuple[int, ...]) -> EncodedPrompt:
    """Encode a caption (one text) or labels (several texts), padded to the smallest bucket that holds it.

    Args:
        texts: one caption in GroundingDINO's syntax, such as "cat . remote control .", or two labels or more.
        text_buckets: the padded lengths T to choose from, at most MAX_TOKENS each.

    Returns:
        The encoded prompt; the same object for the same arguments.

    Raises:
        PromptError: there is no text, a label has no token, or the tokens do not fit.
    """
    check_texts(texts)
    if len(texts) == 1:
        token_ids = [CLS_ID, *_tokenize(preprocess_caption(texts[0])), SEP_ID]
        return _pad(token_ids, (), labels=None, text_buckets=text_buckets)
    return pack_labels(texts, tokenize_labels(texts), text_buckets)


def tokenize_labels(labels: Sequence[str]) -> list[list[int]]:
    """Token ids of each label, without the "." that ends it in a prompt.

    Raises:
        PromptError: a label has no token.
    """
    ids_by_label = []
    for index, label in enumerate(labels):
        label_ids = _tokenize(label.lower())
        if not label_ids:
            raise PromptError(
                f"PROMPT[{index}] has no token: {label!r}",
                fix="leave the label out, or give it at least one letter, digit or sign",
            )
        ids_by_label.append(label_ids)
    return ids_by_label


def pack_labels(
    labels: tuple[str, ...], ids_by_label: Sequence[Sequence[int]], text_buckets: tuple[int, ...]
) -> EncodedPrompt:
    """Put labels into one prompt, each a phrase.

    Args:
        labels: one or more.
        ids_by_label: their tokens.
        text_buckets: as for `encode_prompt`.

    Raises:
        PromptError: the tokens do not fit.
    """
    token_ids = [CLS_ID]
    spans: list[tuple[int, int]] = []
    for label_ids in ids_by_label:
        spans.append((len(token_ids), len(token_ids) + len(label_ids)))
        token_ids += [*label_ids, DOT_ID]
    return _pad([*token_ids, SEP_ID], tuple(spans), labels=labels, text_buckets=text_buckets)


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what is no prompt, before it is tokenised.

    Raises:
        PromptError: there is no text, a text is too long, all are too long together, or one is no Unicode.
    """
    if not texts:
        raise PromptError(
            "PROMPT is empty", fix='send one caption, such as "cat . remote control .", or several labels'
        )
    for what, characters, limit in (
        ("PROMPT", sum(map(len, texts)), MAX_PROMPT_CHARACTERS),
        ("an element of PROMPT", max(map(len, texts)), MAX_TEXT_CHARACTERS),
    ):
        if characters > limit:
            raise PromptError(
                f"{what} has {characters} characters, the limit is {limit}",
                fix="send a shorter caption, or fewer or shorter labels",
            )
    for index, text in enumerate(texts):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise PromptError(
                f"PROMPT[{index}] has a lone surrogate at character {error.start}, which is no text",
                fix="decode the text from UTF-8 or UTF-16 without surrogateescape",
            ) from error


def decode_tokens(token_ids: Sequence[int]) -> str:
    """Turn token ids back into text, word pieces joined and spaces before punctuation removed.

    Source: transformers 4.57, BertTokenizerFast.decode(), with clean_up_tokenization_spaces, which was on for
    bert-base-uncased when GroundingDINO came out; special tokens are kept.
    """
    text: str = load_tokenizer().decode(list(token_ids), skip_special_tokens=False)
    for spaced in (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"):
        text = text.replace(spaced, spaced.strip())
    return text


def _tokenize(text: str) -> list[int]:
    ids: list[int] = load_tokenizer().encode(text, add_special_tokens=False).ids
    return ids


def _pad(
    token_ids: list[int],
    spans: tuple[tuple[int, int], ...],
    *,
    labels: tuple[str, ...] | None,
    text_buckets: tuple[int, ...],
) -> EncodedPrompt:
    bucket = _choose_text_bucket(len(token_ids), spans, text_buckets)
    position_ids, phrase_ids = _positions_and_phrases(token_ids)
    padding = bucket - len(token_ids)
    return EncodedPrompt(
        input_ids=_frozen_int32(token_ids + [PAD_ID] * padding),
        position_ids=_frozen_int32(position_ids + [0] * padding),
        phrase_ids=_frozen_int32(phrase_ids + [-1 - index for index in range(padding)]),
        num_tokens=len(token_ids),
        labels=labels,
        spans=spans,
    )


def _choose_text_bucket(num_tokens: int, spans: tuple[tuple[int, int], ...], text_buckets: tuple[int, ...]) -> int:
    limit = min(max(text_buckets), MAX_TOKENS)
    if num_tokens > limit:
        # The "." after a label and the final [SEP] must fit too.
        fitting = sum(end + 2 <= limit for _, end in spans)
        labels = f"; the first {fitting} of {len(spans)} labels fit" if spans else ""
        raise PromptError(
            f"PROMPT has {num_tokens} tokens with [CLS] and [SEP], the limit is {limit}{labels}",
            fix="split the labels over several requests" if spans else "shorten the caption",
        )
    return min(bucket for bucket in text_buckets if bucket >= num_tokens)


def _positions_and_phrases(token_ids: list[int]) -> tuple[list[int], list[int]]:
    position_ids, phrase_ids = [0], [0]
    position, phrase = 0, 1
    for token_id in token_ids[1:-1]:
        position_ids.append(position)
        phrase_ids.append(phrase)
        position += 1
        if token_id in PHRASE_END_IDS:
            position, phrase = 0, phrase + 1
    # The last token before [SEP] is a ".", so `phrase` is already one that no token has.
    return [*position_ids, 0], [*phrase_ids, phrase]


def _frozen_int32(values: list[int]) -> npt.NDArray[np.int32]:
    array = np.asarray(values, dtype=np.int32)
    array.flags.writeable = False
    return array
