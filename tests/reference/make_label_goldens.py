"""Ask the original's COCO post-processing what it makes of a detector's answer; runs in .venv-reference."""

import argparse
import json
from pathlib import Path

import torch
from transformers import BertTokenizerFast

from tests.reference.logits import NUM_QUERIES, draw_outputs
from tests.reference.original import versions
from tests.reference.original.labels import PostProcessCocoGrounding, positive_map
from tests.reference.original.text import MAX_TOKENS, build_tokenizer

_IMAGE_HW = (480, 640)
_MOST = 40  # of the best pairs of query and label; the original keeps 300
_SEEDS = 40
_CLEAR = 1e-5  # scores that are nearer to each other could change places in float32
_LISTS = json.loads(Path(__file__).with_name("labels.json").read_text(encoding="utf-8"))


def main() -> None:
    """Write the golden file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("tests/goldens/labels.json"))
    out: Path = parser.parse_args().out
    tokenizer = build_tokenizer()
    cases = [{"kind": kind, **_answer(labels, tokenizer)} for kind, lists in _LISTS.items() for labels in lists]
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    made_with = json.dumps(versions())
    out.write_text(
        f'{{"made_with": {made_with},\n"image_hw": {json.dumps(_IMAGE_HW)},\n"cases": [\n{lines}\n]}}\n',
        encoding="utf-8",
    )
    print(f"{out}: {len(cases)} lists of labels, {out.stat().st_size:,} bytes")


def _answer(labels: list[str], tokenizer: BertTokenizerFast) -> dict[str, object]:
    """The best pairs by falling score, for the first seed whose scores are clear of ties."""
    weights, input_ids = positive_map(labels, tokenizer)
    # Equal labels have one score in the original: of those only the last can be told apart.
    last = {label.lower(): index for index, label in enumerate(labels)}
    for seed in range(_SEEDS):
        best = _best(seed, weights, len(input_ids), sorted(last.values()))
        scores = best["scores"]
        if (scores[:-1] - scores[1:]).min() > _CLEAR:
            answer = {name: value.tolist() for name, value in best.items()}
            return {"labels": labels, "input_ids": input_ids, "tokens": _tokens(weights), "seed": seed, **answer}
    raise ValueError(f"the scores of {labels} have ties with each of {_SEEDS} seeds")


def _tokens(weights: torch.Tensor) -> list[list[int]]:
    """The tokens [start, end) that the original takes for each label."""
    return [[int(row.nonzero()[0]), int(row.nonzero()[-1]) + 1] for row in weights]


def _best(seed: int, weights: torch.Tensor, num_tokens: int, rows: list[int]) -> dict[str, torch.Tensor]:
    logits, boxes_cxcywh = map(torch.from_numpy, draw_outputs(seed, num_tokens))
    padded = torch.full((1, NUM_QUERIES, MAX_TOKENS), -torch.inf)
    padded[0, :, :num_tokens] = logits
    postprocess = PostProcessCocoGrounding(min(_MOST, NUM_QUERIES * len(rows)), weights[rows])
    outputs = {"pred_logits": padded, "pred_boxes": boxes_cxcywh[None]}
    best: dict[str, torch.Tensor] = postprocess.forward(outputs, torch.tensor([_IMAGE_HW]))[0]
    return {"scores": best["scores"], "label_index": torch.tensor(rows)[best["labels"]], "boxes": best["boxes"]}


if __name__ == "__main__":
    main()
