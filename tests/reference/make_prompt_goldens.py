"""Ask the original how it reads captions and names phrases; runs in .venv-reference.

For each caption: the tokens after preprocess_caption, their positions, which attend to each other, and what
get_phrases_from_posmap answers for a few sets of tokens above the text threshold.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from transformers import BertTokenizerFast

from tests.reference.original import versions
from tests.reference.original.text import (
    MAX_TOKENS,
    build_tokenizer,
    name_phrase,
    preprocess_caption,
    text_masks,
)

_CAPTIONS = Path(__file__).with_name("captions.json")  # by what each group would catch; add to a group
_TOKEN_SHARES = (0.2, 0.5, 1.0)  # of tokens above the threshold


def main() -> None:
    """Write the golden file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("tests/goldens/prompts.json"))
    out: Path = parser.parse_args().out
    tokenizer = build_tokenizer()
    rng = np.random.default_rng(0)
    cases = [
        _read_caption(caption, tokenizer, rng)
        for group in json.loads(_CAPTIONS.read_text(encoding="utf-8")).values()
        for caption in group
    ]
    lines = ",\n".join(json.dumps(case, ensure_ascii=True, separators=(",", ":")) for case in cases)
    out.write_text(f'{{"made_with": {json.dumps(versions())},\n"cases": [\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{out}: {len(cases)} captions, {out.stat().st_size:,} bytes")


def _read_caption(caption: str, tokenizer: BertTokenizerFast, rng: np.random.Generator) -> dict[str, object]:
    preprocessed = preprocess_caption(caption)
    masks = text_masks(preprocessed, tokenizer)
    if len(masks.input_ids) > MAX_TOKENS:
        raise ValueError(f"{caption[:40]!r} has {len(masks.input_ids)} tokens; the original would cut it")
    return {
        "caption": caption,
        "preprocessed": preprocessed,
        "input_ids": masks.input_ids.tolist(),
        "position_ids": masks.position_ids.tolist(),
        "phrase_ids": masks.phrase_ids().tolist(),
        "phrases": [
            _random_phrase(preprocessed, len(masks.input_ids), share, tokenizer, rng) for share in _TOKEN_SHARES
        ],
    }


def _random_phrase(
    preprocessed: str, tokens: int, share: float, tokenizer: BertTokenizerFast, rng: np.random.Generator
) -> dict[str, object]:
    """Draw a share of the tokens to be above the threshold; the original names their phrase."""
    above: list[int] = np.flatnonzero(rng.random(tokens) < share).tolist()
    return {"tokens": above, "text": name_phrase(above, preprocessed, tokenizer)}


if __name__ == "__main__":
    main()
