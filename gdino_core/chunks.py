"""Split a list of labels over as many prompts as it takes.

The prompts run as a batch with the same picture. Their detections, put together, are those of asking for the labels of
each prompt alone: a label sees no other label, whether in its own prompt or not.
"""

from collections.abc import Sequence
from functools import lru_cache

from gdino_core.contract import MAX_TOKENS
from gdino_core.errors import PromptError
from gdino_core.prompt import EncodedPrompt, check_texts, encode_prompt, pack_labels, tokenize_labels

_CLS_AND_SEP = 2


@lru_cache(maxsize=64)
def encode_chunks(texts: tuple[str, ...], text_buckets: tuple[int, ...], max_prompts: int) -> tuple[EncodedPrompt, ...]:
    """Encode a caption or labels, labels in as few prompts as hold them, of equal length.

    Args:
        texts: one caption, or two labels or more.
        text_buckets: the padded lengths T to choose from.
        max_prompts: most prompts that labels may fill.

    Returns:
        Prompts with the same T; of labels that fit into one prompt, that of `encode_prompt`. The same objects for the
        same arguments.

    Raises:
        PromptError: there is no text, a label has no token or too many, or there are more than max_prompts prompts.
    """
    check_texts(texts)
    if len(texts) == 1:
        return (encode_prompt(texts, text_buckets),)
    limit = min(max(text_buckets), MAX_TOKENS)
    ids_by_label = tokenize_labels(texts)
    sizes = [len(label_ids) + 1 for label_ids in ids_by_label]  # with the "." after it
    _check_longest(sizes, texts, limit)
    ends = _ends_of_chunks(sizes, limit)
    if len(ends) > max_prompts:
        raise PromptError(
            f"PROMPT has {len(texts)} labels of {sum(sizes)} tokens, which fill {len(ends)} prompts of {limit}; "
            f"the limit is {max_prompts}",
            fix="split the labels over several requests",
        )
    starts = [0, *ends[:-1]]
    chunks = [(texts[start:end], ids_by_label[start:end]) for start, end in zip(starts, ends, strict=True)]
    longest = max(sum(sizes[start:end]) for start, end in zip(starts, ends, strict=True)) + _CLS_AND_SEP
    bucket = min(bucket for bucket in text_buckets if bucket >= longest)
    return tuple(pack_labels(labels, ids, (bucket,)) for labels, ids in chunks)


def _check_longest(sizes: Sequence[int], texts: Sequence[str], limit: int) -> None:
    index = max(range(len(sizes)), key=sizes.__getitem__)
    if sizes[index] + _CLS_AND_SEP > limit:
        raise PromptError(
            f"PROMPT[{index}] alone has {sizes[index] - 1} tokens, "
            f"the limit for a label is {limit - _CLS_AND_SEP - 1}: {texts[index][:60]!r}",
            fix="shorten the label",
        )


def _ends_of_chunks(sizes: Sequence[int], limit: int) -> list[int]:
    """Where each chunk ends: as few as can be, and of those the split whose longest chunk is shortest."""
    fewest = len(_fill(sizes, limit))
    low, high = max(sizes) + _CLS_AND_SEP, limit
    while low < high:
        middle = (low + high) // 2
        if len(_fill(sizes, middle)) > fewest:
            low = middle + 1
        else:
            high = middle
    return _fill(sizes, low)


def _fill(sizes: Sequence[int], limit: int) -> list[int]:
    """Fill one chunk after the other up to a limit; where each ends."""
    ends, tokens = [], _CLS_AND_SEP
    for index, size in enumerate(sizes):
        if tokens + size > limit:
            ends.append(index)
            tokens = _CLS_AND_SEP
        tokens += size
    return [*ends, len(sizes)]
