"""Tells the sizes of a model from the shapes of its tensors."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gdino_build.model import ARCHITECTURES, BertConfig, ModelConfig, SwinConfig

Shape = tuple[int, ...]
_BERT_HEAD_DIM = 64  # of every BERT that Google published
_NUM_POINTS = 4  # of both official models


@dataclass(frozen=True, kw_only=True)
class GuessedArchitecture:
    """What shapes tell.

    Attributes:
        config: all sizes; it is one of ARCHITECTURES where the shapes are those of one.
        assumed: the sizes that shapes cannot tell, as a person reads them.
    """

    config: ModelConfig
    assumed: str


def guess_architecture(shapes: Mapping[str, Shape]) -> GuessedArchitecture | None:
    """Read the sizes off the shapes.

    Args:
        shapes: of the tensors, by official name; see `canonical_state_dict`.

    Returns:
        None where a tensor that tells a size is missing or contradicts the others.
    """
    try:
        told = _told(shapes)
        samples = shapes["transformer.encoder.layers.0.self_attn.attention_weights.weight"][0]
        heads_and_points, remainder = divmod(samples, told.num_levels)
    except (KeyError, IndexError, ZeroDivisionError):
        return None
    if remainder or heads_and_points % _NUM_POINTS:
        return None
    config = replace(told, num_points=_NUM_POINTS, num_heads=heads_and_points // _NUM_POINTS)
    config = next((known for known in ARCHITECTURES.values() if _with_untold_of(known, config) == known), config)
    assumed = (
        f"{config.num_heads} heads and {config.num_points} points (shapes tell the product), "
        f"{config.bert.num_heads} heads in BERT"
    )
    return GuessedArchitecture(config=config, assumed=assumed)


def differences(found: ModelConfig, wanted: ModelConfig) -> list[str]:
    """Sizes in which two architectures differ by shape, such as `num_queries 300, not 900`."""
    found = _with_untold_of(wanted, found)
    pairs = [
        (prefix, vars(mine), vars(other))
        for prefix, mine, other in (
            ("Swin ", found.swin, wanted.swin),
            ("BERT ", found.bert, wanted.bert),
            ("", found, wanted),
        )
    ]
    return [
        f"{prefix}{name} {_words(mine[name])}, not {_words(other[name])}"
        for prefix, mine, other in pairs
        for name in mine
        if name not in ("name", "swin", "bert") and mine[name] != other[name]
    ]


def _words(size: object) -> str:
    return " ".join(map(str, size)) if isinstance(size, tuple) else str(size)


def _told(shapes: Mapping[str, Shape]) -> ModelConfig:
    """The sizes that shapes tell, with 1 for the numbers of heads and points of the detector."""
    words = shapes["bert.embeddings.word_embeddings.weight"]
    return ModelConfig(
        name="unnamed",
        swin=_swin(shapes),
        bert=BertConfig(
            vocab_size=words[0],
            hidden_dim=words[1],
            num_layers=_count(shapes, r"bert\.encoder\.layer\.(\d+)\."),
            num_heads=max(words[1] // _BERT_HEAD_DIM, 1),
            ffn_dim=shapes["bert.encoder.layer.0.intermediate.dense.weight"][0],
            max_positions=shapes["bert.embeddings.position_embeddings.weight"][0],
        ),
        hidden_dim=shapes["feat_map.weight"][0],
        num_heads=1,
        num_encoder_layers=_count(shapes, r"transformer\.encoder\.layers\.(\d+)\."),
        num_decoder_layers=_count(shapes, r"transformer\.decoder\.layers\.(\d+)\."),
        ffn_dim=shapes["transformer.decoder.layers.0.linear1.weight"][0],
        num_queries=shapes["transformer.tgt_embed.weight"][0],
        num_levels=shapes["transformer.level_embed"][0],
        num_points=1,
    )


def _swin(shapes: Mapping[str, Shape]) -> SwinConfig:
    tables = [
        shapes[f"backbone.0.layers.{stage}.blocks.0.attn.relative_position_bias_table"]
        for stage in range(_count(shapes, r"backbone\.0\.layers\.(\d+)\."))
    ]
    return SwinConfig(
        embed_dim=shapes["backbone.0.patch_embed.proj.weight"][0],
        depths=tuple(_count(shapes, rf"backbone\.0\.layers\.{stage}\.blocks\.(\d+)\.") for stage in range(len(tables))),
        num_heads=tuple(table[1] for table in tables),
        window_size=(math.isqrt(tables[0][0]) + 1) // 2,  # the table has (2 window - 1)² rows
    )


def _count(names: Iterable[str], pattern: str) -> int:
    """How many layers there are, by the numbers in their names."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def _with_untold_of(known: ModelConfig, config: ModelConfig) -> ModelConfig:
    """The configuration with the sizes of a known one that its shapes cannot contradict."""
    alike = known.num_heads * known.num_points == config.num_heads * config.num_points
    return replace(
        config,
        name=known.name,
        num_heads=known.num_heads if alike else config.num_heads,
        num_points=known.num_points if alike else config.num_points,
        bert=replace(config.bert, num_heads=known.bert.num_heads),
    )
