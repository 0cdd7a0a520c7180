"""Builds the original model and loads weights into it.

Its code is not changed. What it would fetch is handed to it (an untrained BERT, the tokenizer of our
vocabulary), and what it has written into it for its own sizes (Swin's table, sine embeddings of width 256) is
replaced for the demo.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest.mock import patch

import groundingdino.config
import torch
from groundingdino.models import build_model
from groundingdino.models.GroundingDINO import transformer
from groundingdino.models.GroundingDINO.backbone import backbone
from groundingdino.models.GroundingDINO.backbone.swin_transformer import SwinTransformer
from groundingdino.models.GroundingDINO.utils import gen_sineembed_for_position, get_sine_pos_embed
from groundingdino.util import get_tokenlizer
from groundingdino.util.slconfig import SLConfig
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from tests.reference.original import versions
from tests.reference.original.text import build_tokenizer

_CONFIG_DIR = Path(groundingdino.config.__file__).parent
_OWN_WIDTH = 256  # of the original's sine embeddings


@dataclass(frozen=True, kw_only=True)
class _Architecture:
    """The original's configuration file and, for the demo, what differs from it."""

    config_file: str
    options: Mapping[str, int] = field(default_factory=dict)
    swin: Mapping[str, int | list[int]] | None = None  # None: the original's own table
    bert: Mapping[str, int] = field(default_factory=dict)  # bert-base-uncased but for these


_ARCHITECTURES = {
    "swint": _Architecture(config_file="GroundingDINO_SwinT_OGC.py"),
    "swinb": _Architecture(config_file="GroundingDINO_SwinB_cfg.py"),
    "demo": _Architecture(
        config_file="GroundingDINO_SwinT_OGC.py",
        options={
            "hidden_dim": 128,
            "nheads": 4,
            "enc_layers": 2,
            "dec_layers": 3,
            "dim_feedforward": 256,
            "num_queries": 60,
        },
        swin={"embed_dim": 32, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "window_size": 7},
        bert={"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256},
    ),
}
MODELS = tuple(_ARCHITECTURES)


def build_original(model: str) -> nn.Module:
    """Build the original with untrained weights, in evaluation mode; one of MODELS at a time."""
    architecture = _ARCHITECTURES[model]
    options = SLConfig.fromfile(str(_CONFIG_DIR / architecture.config_file))
    # Recomputing activations saves memory in training; it does not change a number.
    for name, value in {
        **architecture.options,
        "use_checkpoint": False,
        "use_transformer_ckpt": False,
    }.items():
        options[name] = value
    # Deprecations that reach the original: torch.meshgrid without indexing, torch.cuda.amp.
    warnings.filterwarnings("ignore", message="torch.meshgrid|`torch.cuda.amp")
    with _without_network(architecture), _swin_of(architecture):
        built: nn.Module = build_model(options)
    _set_sine_embeddings(options.hidden_dim)
    return built.eval().requires_grad_(False)


def load_weights(model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Load a .safetensors file of official names, strictly but for what inference does not read.

    The box head, which the original registers once per layer and again in the decoder, is needed once.

    Returns:
        The tensors of the file.

    Raises:
        ValueError: names are missing or unexpected.
    """
    state = load_file(path)
    result = model.load_state_dict({name: value.float() for name, value in state.items()}, strict=False)
    own = model.state_dict()
    loaded = {own[name].data_ptr() for name in state if name in own}
    missing = [name for name in result.missing_keys if not _unread(name) and own[name].data_ptr() not in loaded]
    unexpected = [name for name in result.unexpected_keys if not _unread(name)]
    if missing or unexpected:
        raise ValueError(f"{path} does not fit the original: missing {missing}, unexpected {unexpected}")
    return state


def _unread(name: str) -> bool:
    return name.startswith(("label_enc.", "bert.pooler.")) or name.endswith(
        (".position_ids", ".relative_position_index")
    )


@contextmanager
def _without_network(architecture: _Architecture) -> Iterator[None]:
    def build_bert(_: str) -> BertModel:
        return BertModel(BertConfig(**architecture.bert))

    with (
        patch.object(get_tokenlizer, "get_tokenlizer", lambda _: build_tokenizer()),
        patch.object(get_tokenlizer, "get_pretrained_language_model", build_bert),
    ):
        yield


@contextmanager
def _swin_of(architecture: _Architecture) -> Iterator[None]:
    swin = architecture.swin
    if swin is None:
        yield
        return

    def build_swin(_: str, **options: object) -> SwinTransformer:
        return SwinTransformer(**{**options, **swin})

    with patch.object(backbone, "build_swin_transformer", build_swin):
        yield


def _set_sine_embeddings(hidden_dim: int) -> None:
    """Give the transformer sine embeddings of the model's width; its own ones where that is 256."""
    _check_sine_of_boxes()
    text: Callable[..., Tensor] = get_sine_pos_embed
    boxes: Callable[..., Tensor] = gen_sineembed_for_position
    if hidden_dim != _OWN_WIDTH:
        text = partial(_sine_of_positions, hidden_dim)
        boxes = partial(_sine_of_boxes, hidden_dim)
    transformer.get_sine_pos_embed = text
    transformer.gen_sineembed_for_position = boxes


def _sine_of_positions(hidden_dim: int, position_ids: Tensor, *, num_pos_feats: int, exchange_xy: bool) -> Tensor:
    """get_sine_pos_embed, whose caller asks for a width of 256, at the model's width."""
    if num_pos_feats != _OWN_WIDTH:
        raise ValueError(f"the original asks for sine embeddings of width {num_pos_feats}, not {_OWN_WIDTH}")
    embedded: Tensor = get_sine_pos_embed(position_ids, hidden_dim, exchange_xy=exchange_xy)
    return embedded


def _sine_of_boxes(hidden_dim: int, boxes: Tensor) -> Tensor:
    """gen_sineembed_for_position, which has half of 256 written into it, at half of the model's width."""
    embedded: Tensor = get_sine_pos_embed(boxes, hidden_dim // 2)
    return embedded


def _check_sine_of_boxes() -> None:
    boxes = torch.rand(5, 1, 4, generator=torch.Generator().manual_seed(0))
    if not torch.equal(_sine_of_boxes(_OWN_WIDTH, boxes), gen_sineembed_for_position(boxes)):
        raise AssertionError("the original's two sine embeddings of boxes differ at its own width")


if __name__ == "__main__":
    parameters = sum(value.numel() for value in build_original("demo").parameters())
    print(f"the original runs here, with {versions()}; the demo model has {parameters:,} parameters")
