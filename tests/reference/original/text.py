"""How the original reads a caption and names phrases."""

from dataclasses import dataclass
from pathlib import Path

import torch
from groundingdino.models.GroundingDINO.bertwarper import (
    generate_masks_with_special_tokens_and_transfer_map as generate_masks,
)
from groundingdino.util.inference import predict, preprocess_caption
from torch import Tensor
from transformers import BertTokenizerFast

__all__ = ["MAX_TOKENS", "TextMasks", "build_tokenizer", "predict", "preprocess_caption", "text_masks"]

MAX_TOKENS = 256  # max_text_len of both configurations
_VOCABULARY = Path(__file__).parents[3] / "gdino_core" / "vocab.txt"


def build_tokenizer() -> BertTokenizerFast:
    """Build the tokenizer of bert-base-uncased from the vocabulary in gdino_core."""
    # True was transformers' default when GroundingDINO was published; 4.57's is False.
    return BertTokenizerFast(vocab_file=str(_VOCABULARY), do_lower_case=True, clean_up_tokenization_spaces=True)


@dataclass(frozen=True, kw_only=True)
class TextMasks:
    """A caption as the original reads it: input_ids and position_ids int64 [T], attention bool [T, T]."""

    input_ids: Tensor
    position_ids: Tensor
    attention: Tensor

    def phrase_ids(self) -> Tensor:
        """Numbers int64 [T] that are equal exactly where tokens attend to each other, counted from the left.

        Raises:
            ValueError: the mask is no such partition.
        """
        first = self.attention.int().argmax(1)  # the first token of each token's phrase
        ids: Tensor = torch.unique(first, return_inverse=True)[1]
        if not torch.equal(ids[:, None] == ids[None], self.attention):
            raise ValueError("the original's attention mask does not split the caption into phrases")
        return ids


def text_masks(preprocessed: str, tokenizer: BertTokenizerFast) -> TextMasks:
    """Tokenize a preprocessed caption, mask it, and cut it to MAX_TOKENS, as GroundingDINO.forward() does."""
    tokenized = tokenizer([preprocessed], padding="longest", return_tensors="pt")
    special_tokens = tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]", ".", "?"])
    attention, position_ids, _ = generate_masks(tokenized, special_tokens, tokenizer)
    return TextMasks(
        input_ids=tokenized["input_ids"][0, :MAX_TOKENS],
        position_ids=position_ids[0, :MAX_TOKENS],
        attention=attention[0, :MAX_TOKENS, :MAX_TOKENS],
    )
