"""Ask the original how it reads captions; runs in .venv-reference.

For each caption: the tokens after preprocess_caption, their positions, and which attend to each other. The
original cuts what is longer than 256 tokens, in the middle of a phrase; then only the tokens that are left.
"""

import argparse
import json
from pathlib import Path

from transformers import BertTokenizerFast

from tests.reference.captions import Caption, read_captions
from tests.reference.original import versions
from tests.reference.original.text import MAX_TOKENS, build_tokenizer, preprocess_caption, text_masks


def main() -> None:
    """Write the golden file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("tests/goldens/prompts.json"))
    out: Path = parser.parse_args().out
    tokenizer = build_tokenizer()
    cases = [_read_caption(caption, tokenizer) for caption in read_captions()]
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    out.write_text(f'{{"made_with": {json.dumps(versions())},\n"cases": [\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{out}: {len(cases)} captions, {out.stat().st_size:,} bytes")


def _read_caption(caption: Caption, tokenizer: BertTokenizerFast) -> dict[str, object]:
    preprocessed = preprocess_caption(caption.text)
    masks = text_masks(preprocessed, tokenizer)
    case: dict[str, object] = {
        "kind": caption.kind,
        "caption": caption.written,
        "num_tokens": len(tokenizer(preprocessed)["input_ids"]),
        "input_ids": masks.input_ids.tolist(),
    }
    if case["num_tokens"] > MAX_TOKENS:
        return case
    return case | {"position_ids": masks.position_ids.tolist(), "phrase_ids": masks.phrase_ids().tolist()}


if __name__ == "__main__":
    main()
