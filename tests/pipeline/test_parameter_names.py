"""Official checkpoints load: names and shapes are those of the original's own state dict."""

import json
from pathlib import Path

import pytest
import torch

from gdino_build.checkpoint import canonical_state_dict
from gdino_build.model import SWINB_COGCOOR, SWINT_OGC, GroundingDino, ModelConfig

NAMES = Path(__file__).parents[1] / "goldens" / "parameter_names.json"


def original_state(model: str, prefix: str = "") -> dict[str, torch.Tensor]:
    shapes = json.loads(NAMES.read_text(encoding="utf-8"))[model]
    # Zeros that share one number: the shapes of a full-size model without its memory.
    return {prefix + name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(("model", "config"), [("swint", SWINT_OGC), ("swinb", SWINB_COGCOOR)])
def test_official_names_and_shapes_are_ours(model: str, config: ModelConfig, prefix: str) -> None:
    with torch.device("meta"):
        ours = {name: tensor.shape for name, tensor in GroundingDino(config).state_dict().items()}
    canonical = canonical_state_dict(original_state(model, prefix))
    assert {name: tensor.shape for name, tensor in canonical.items()} == ours


def test_nothing_is_dropped_but_what_inference_never_reads() -> None:
    official = original_state("swint")
    canonical = canonical_state_dict(official)
    dropped = [name for name in official if name not in canonical and "bbox_embed" not in name]
    assert {name.rsplit(".", 1)[-1] for name in dropped if ".attn." in name} == {"relative_position_index"}
    others = sorted(name for name in dropped if ".attn." not in name)
    assert others == ["bert.pooler.dense.bias", "bert.pooler.dense.weight"]


def test_the_extra_keys_of_the_published_files_are_dropped() -> None:
    extra = {
        "module.label_enc.weight": torch.zeros(2001, 256),
        "module.bert.embeddings.position_ids": torch.arange(512)[None],
    }
    assert canonical_state_dict(extra) == {}
