"""Logits and boxes to give to the original's post-processing and to ours: drawn in integers, far from ties."""

import numpy as np
import numpy.typing as npt

NUM_QUERIES = 6
_STEP = 0.25  # between the logits of one query; sigmoid keeps them apart in float32
_SHIFT = 0.59375  # between the best logits of two queries: the later ones are below the thresholds


def draw_outputs(seed: int, num_tokens: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Draw a detector's answer.

    Every query has a token of logit 2 (probability 0.88) less its shift, and others below it in random order:
    about ten stand above the text threshold. The last boxes leave the picture.

    Args:
        seed: chooses the answer.
        num_tokens: of the prompt, [CLS] and [SEP] included.

    Returns:
        Logits float32 [NUM_QUERIES, num_tokens], and boxes_cxcywh float32 [NUM_QUERIES, 4].
    """
    rng = np.random.default_rng(seed)
    ranks = np.stack([rng.permutation(num_tokens) for _ in range(NUM_QUERIES)])
    shifts = _SHIFT * rng.permutation(NUM_QUERIES)[:, None]
    boxes_cxcywh = rng.integers(1, 64, (NUM_QUERIES, 4)) / 64
    return (2 - _STEP * ranks - shifts).astype(np.float32), boxes_cxcywh.astype(np.float32)
