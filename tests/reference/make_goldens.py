"""Ask the original for logits, boxes and proposals of each case; runs in .venv-reference.

One picture at a time and without padding, as its predict() does: in a batch the original mixes up the text masks
(GroundingDINO issue #294) and lets the padding show.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from gdino_build.golden import (
    Answer,
    Case,
    Floats,
    Golden,
    Ints,
    pixels_sha256,
    save_golden,
    tokens_in_frame,
    weights_sha256,
)
from tests.reference.cases import CASES, RESIZES
from tests.reference.original import versions
from tests.reference.original.images import normalise, resize
from tests.reference.original.model import MODELS, build_original, load_weights
from tests.reference.original.text import build_tokenizer, preprocess_caption, text_masks

_RUNNER_UPS = 16
_KEPT_QUERIES = 100


def main() -> None:
    """Make one golden file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--weights", type=Path, required=True, help=".safetensors of official names")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    model = build_original(arguments.model)
    weights = load_weights(model, arguments.weights)
    cases = []
    for case in CASES[arguments.model]:
        start = perf_counter()
        answer = answer_case(model, case, *RESIZES[arguments.model])
        cases.append((case, answer))
        print(f"{case.name}: {_summary(answer)}, {perf_counter() - start:.1f} s")
    golden = Golden(
        model=arguments.model,
        weights_sha256=weights_sha256((name, _floats(value)) for name, value in weights.items()),
        made_with=versions(),
        cases=tuple(cases),
    )
    save_golden(golden, arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes")


def answer_case(model: nn.Module, case: Case, short_side: int, long_side: int) -> Answer:
    """Run the original on one case."""
    caption = preprocess_caption(case.caption)
    masks = text_masks(caption, build_tokenizer())
    picture = Image.fromarray(case.picture())
    if case.picture_hw != case.valid_hw:
        picture = resize(picture, short_side, long_side)
    if (picture.height, picture.width) != case.valid_hw:
        raise ValueError(f"{case.name}: the original resizes to {picture.height}x{picture.width}, not {case.valid_hw}")
    features: list[Tensor] = []
    hook = model.get_submodule("feat_map").register_forward_hook(lambda _m, _inputs, output: features.append(output))
    with torch.inference_mode(), _recorded_topk() as searches:
        outputs = model(normalise(picture)[None], captions=[caption])
    hook.remove()
    [(scores, proposals)] = searches  # the two-stage selection is the only one
    others = scores.scatter(0, proposals, -torch.inf)
    runner_ups = others.topk(min(_RUNNER_UPS, len(scores) - len(proposals))).indices
    logits = outputs["pred_logits"][0, :, : len(masks.input_ids)]  # the rest of the 256 is -inf
    queries = logits.amax(1).argsort(descending=True, stable=True)[:_KEPT_QUERIES]
    return Answer(
        pixels_sha256=np.array(pixels_sha256(np.asarray(picture))),
        input_ids=_ints(masks.input_ids),
        position_ids=_ints(masks.position_ids),
        phrase_ids=_ints(masks.phrase_ids()),
        text_features=_floats(features[0][0]),
        queries=_ints(queries),
        logits=_floats(logits[queries]),
        boxes=_floats(outputs["pred_boxes"][0, queries]),
        proposals=tokens_in_frame(_ints(proposals), case.valid_hw, case.padded_hw),
        proposal_scores=_floats(scores[proposals]),
        runner_ups=tokens_in_frame(_ints(runner_ups), case.valid_hw, case.padded_hw),
        runner_up_scores=_floats(scores[runner_ups]),
    )


@contextmanager
def _recorded_topk() -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect the scores [S] that torch.topk is given and the indices [Q] it returns."""
    searches: list[tuple[Tensor, Tensor]] = []
    original = torch.topk

    def topk(scores: Tensor, count: int, *, dim: int) -> tuple[Tensor, Tensor]:
        values, indices = original(scores, count, dim=dim)
        searches.append((scores[0], indices[0]))
        return values, indices

    with patch.object(torch, "topk", topk):
        yield searches


def _ints(tensor: Tensor) -> Ints:
    return tensor.numpy().astype(np.int32)


def _floats(tensor: Tensor) -> Floats:
    return tensor.float().numpy()


def _summary(answer: Answer) -> str:
    scores = 1 / (1 + np.exp(-answer.logits.max(1)))
    sides = answer.boxes[:, 2:]
    margin = answer.proposal_scores[-1] - answer.runner_up_scores[0]
    return (
        f"{answer.logits.shape[1]} tokens, logits {answer.logits.min():.2f} to {answer.logits.max():.2f}, "
        f"best score {scores.max():.2f}, box sides {sides.min():.3f} to {sides.max():.3f}, "
        f"margin of the last proposal {margin:.1e}"
    )


if __name__ == "__main__":
    main()
