"""Ask the original's predict() how it names what a detector answers; runs in .venv-reference.

The model is a stand-in that answers with logits from a seed, so that everything after the model is the
original's own code. Captions that it would cut are left out: we refuse them.
"""

import argparse
import json
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from transformers import BertTokenizerFast

from tests.reference.captions import Caption, read_captions
from tests.reference.logits import draw_outputs
from tests.reference.original import versions
from tests.reference.original.text import MAX_TOKENS, build_tokenizer, predict, preprocess_caption

_THRESHOLDS = ((0.35, 0.25), (0.5, 0.1), (0.2, 0.7))  # box, text: the defaults, long phrases, short ones


class _CannedModel:
    """Answers every picture with the same logits and boxes."""

    def __init__(self, logits: Tensor, boxes_cxcywh: Tensor, tokenizer: BertTokenizerFast) -> None:
        self.tokenizer = tokenizer
        # The original masks what lies beyond the text with -inf.
        padded = torch.full((len(logits), MAX_TOKENS), -torch.inf)
        padded[:, : logits.shape[1]] = logits
        self._outputs = {"pred_logits": padded[None], "pred_boxes": boxes_cxcywh[None]}

    def to(self, _: str) -> "_CannedModel":
        return self

    def __call__(self, _: Tensor, captions: list[str]) -> dict[str, Tensor]:
        return self._outputs


def main() -> None:
    """Write the golden file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("tests/goldens/predict.json"))
    out: Path = parser.parse_args().out
    tokenizer = build_tokenizer()
    cases = [
        _predict(seed, caption, num_tokens, tokenizer)
        for seed, caption in enumerate(read_captions())
        if (num_tokens := len(tokenizer(preprocess_caption(caption.text))["input_ids"])) <= MAX_TOKENS
    ]
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    out.write_text(f'{{"made_with": {json.dumps(versions())},\n"cases": [\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{out}: {len(cases)} captions, {out.stat().st_size:,} bytes")


def _predict(seed: int, caption: Caption, num_tokens: int, tokenizer: BertTokenizerFast) -> dict[str, object]:
    """The phrases of the queries above the box threshold, in the detector's order."""
    logits, boxes_cxcywh = map(torch.from_numpy, draw_outputs(seed, num_tokens))
    model = _CannedModel(logits, boxes_cxcywh, tokenizer)
    answers = []
    for (box_threshold, text_threshold), remove_combined in product(_THRESHOLDS, (False, True)):
        _, _, phrases = predict(
            model=model,
            image=torch.zeros(3, 1, 1),
            caption=caption.text,
            box_threshold=box_threshold,
            text_threshold=text_threshold,
            device="cpu",
            remove_combined=remove_combined,
        )
        answers.append([box_threshold, text_threshold, remove_combined, phrases])
    return {"seed": seed, "kind": caption.kind, "caption": caption.written, "answers": answers}


if __name__ == "__main__":
    main()
