"""Typed configurations of the architectures that this project exports.

Source: GroundingDINO, groundingdino/config/GroundingDINO_SwinT_OGC.py and GroundingDINO_SwinB_cfg.py.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class SwinConfig:
    """Sizes of the Swin backbone; stages 2 to 4 (strides 8, 16, 32) feed the detector."""

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_size: int

    @property
    def stage_dims(self) -> tuple[int, ...]:
        """Channels of each stage: they double from one to the next."""
        return tuple(self.embed_dim * 2**stage for stage in range(len(self.depths)))


@dataclass(frozen=True, kw_only=True)
class BertConfig:
    """Sizes of the BERT text encoder; the default is bert-base-uncased."""

    vocab_size: int = 30522
    hidden_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    ffn_dim: int = 3072
    max_positions: int = 512


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of one GroundingDINO; the defaults are those of both official checkpoints."""

    name: str
    swin: SwinConfig
    bert: BertConfig = BertConfig()
    hidden_dim: int = 256
    num_heads: int = 8
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    ffn_dim: int = 2048
    num_queries: int = 900
    num_levels: int = 4
    num_points: int = 4

    @property
    def fusion_dim(self) -> int:
        """Width of the image-text fusion attention: half the feed-forward width in the original."""
        return self.ffn_dim // 2

    @property
    def fusion_heads(self) -> int:
        """Heads of fusion and of the text layers: half of the detector's in the original."""
        return self.num_heads // 2


_SWIN_T = SwinConfig(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window_size=7)
_SWIN_B = SwinConfig(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), window_size=12)
_SWIN_L = SwinConfig(embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48), window_size=12)

# The original's names: size, side of the pictures it was pretrained on, classes of ImageNet it was pretrained on.
# Source: GroundingDINO, models/GroundingDINO/backbone/swin_transformer.py, build_swin_transformer().
SWIN_BACKBONES = {
    "swin_T_224_1k": _SWIN_T,
    "swin_B_224_22k": replace(_SWIN_B, window_size=7),
    "swin_B_384_22k": _SWIN_B,
    "swin_L_224_22k": replace(_SWIN_L, window_size=7),
    "swin_L_384_22k": _SWIN_L,
}

SWINT_OGC = ModelConfig(name="swint-ogc", swin=SWIN_BACKBONES["swin_T_224_1k"])

SWINB_COGCOOR = ModelConfig(name="swinb-cogcoor", swin=SWIN_BACKBONES["swin_B_384_22k"])

DEMO = ModelConfig(
    name="demo",
    swin=SwinConfig(embed_dim=32, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8), window_size=7),
    bert=BertConfig(hidden_dim=64, num_layers=2, num_heads=2, ffn_dim=256),
    hidden_dim=128,
    num_heads=4,
    num_encoder_layers=2,
    num_decoder_layers=3,
    ffn_dim=256,
    num_queries=60,
)

ARCHITECTURES = {config.name: config for config in (SWINT_OGC, SWINB_COGCOOR, DEMO)}
