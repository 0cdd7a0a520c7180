"""The whole model, and the two modules that are exported from it.

Source: GroundingDINO, models/GroundingDINO/groundingdino.py.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gdino_build.model.config import ModelConfig
from gdino_build.model.geometry import (
    Geometry,
    additive_mask,
    build_geometry,
    inside_map,
    sine_embedding,
    split_levels,
)
from gdino_build.model.projection import LevelProjection
from gdino_build.model.swin import SwinTransformer
from gdino_build.model.text import Bert, phrase_mask
from gdino_build.model.transformer import Mlp, TextTokens, Transformer, contrastive_logits, inverse_sigmoid

IMAGE_MEAN = (123.675, 116.28, 103.53)  # ImageNet's, in units of a uint8 channel
IMAGE_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The encoder's result: image tokens, their geometry and the text."""

    memory: Tensor  # [B,S,C]
    geometry: Geometry
    text: TextTokens


class GroundingDino(nn.Module):
    """GroundingDINO for inference; differentiable, so the demo checkpoint is trained with it too."""

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.hidden_dim
        self.backbone = nn.ModuleList([SwinTransformer(config.swin)])
        self.bert = Bert(config.bert)
        self.feat_map = nn.Linear(config.bert.hidden_dim, dim)
        widths = config.swin.stage_dims[1:]
        self.input_proj = nn.ModuleList(LevelProjection(nn.Conv2d(width, dim, 1)) for width in widths)
        self.input_proj.append(LevelProjection(nn.Conv2d(widths[-1], dim, 3, stride=2, padding=1)))
        self.transformer = Transformer(config)
        self.bbox_embed = nn.ModuleList([Mlp(dim, dim, 4, 3)])  # one head, shared by all decoder layers
        self.register_buffer("image_mean", torch.tensor(IMAGE_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.tensor(IMAGE_STD).view(3, 1, 1), persistent=False)

    def encode_text(self, input_ids: Tensor, position_ids: Tensor, phrase_ids: Tensor) -> Tensor:
        """Text features float32 [B,T,C] of int32 [B,T] ids; see `Bert`."""
        return self.feat_map(self.bert(input_ids, position_ids, phrase_ids))

    def encode(
        self,
        pixels: Tensor,
        valid_hw: Tensor,
        text_features: Tensor,
        position_ids: Tensor,
        phrase_ids: Tensor,
    ) -> Encoded:
        """Run backbone and encoder; arguments as in `detect`."""
        dim = self.config.hidden_dim
        geometry = build_geometry((pixels.shape[2], pixels.shape[3]), valid_hw, self.config.num_levels, dim)
        text = TextTokens(
            features=text_features,
            mask=additive_mask(phrase_ids >= 0)[:, None, None],
            phrase_mask=phrase_mask(phrase_ids),
            position=sine_embedding(position_ids.to(torch.float32) * (2 * math.pi), dim),
        )
        maps = self.backbone[0](self._normalise(pixels, valid_hw), valid_hw)
        tokens = self._tokens(maps, geometry)
        memory, features = self.transformer.encode(tokens, geometry, text)
        return Encoded(memory=memory, geometry=geometry, text=replace(text, features=features))

    def decode(self, encoded: Encoded, boxes: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Refine proposals [B,Q,4]; returns logits [B,Q,T] and boxes [B,Q,4] of each decoder layer."""
        queries = self.transformer.tgt_embed.weight.expand(boxes.shape[0], -1, -1)
        head = self.bbox_embed[0]
        states = self.transformer.decoder(queries, boxes, encoded.memory, encoded.geometry, encoded.text, head)
        return [
            (contrastive_logits(state, encoded.text), (head(state) + inverse_sigmoid(before)).sigmoid())
            for state, before in states
        ]

    def detect(
        self,
        pixels: Tensor,
        valid_hw: Tensor,
        text_features: Tensor,
        position_ids: Tensor,
        phrase_ids: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Find objects.

        Args:
            pixels: uint8 [B,3,H,W], RGB; H and W multiples of 32; what lies outside VALID_HW is ignored.
            valid_hw: int32 [B,2], height and width of the real picture at the top left.
            text_features: float32 [B,T,C] from `encode_text`.
            position_ids: int32 [B,T].
            phrase_ids: int32 [B,T], negative for padding.

        Returns:
            Logits float32 [B,Q,T], about -1e4 for padding, and boxes float32 [B,Q,4], cx, cy, w, h as fractions of the
            real picture.
        """
        encoded = self.encode(pixels, valid_hw, text_features, position_ids, phrase_ids)
        candidates, anchors = self.transformer.candidates(encoded.memory, encoded.geometry)
        _, boxes = self.transformer.propose(candidates, anchors, encoded.text, encoded.geometry)
        return self.decode(encoded, boxes)[-1]

    def _normalise(self, pixels: Tensor, valid_hw: Tensor) -> Tensor:
        """Normalised float32 [B,3,H,W], zero beyond the picture."""
        inside = inside_map((pixels.shape[2], pixels.shape[3]), valid_hw)[:, None].to(torch.float32)
        return (pixels.to(torch.float32) - self.image_mean) / self.image_std * inside

    def _tokens(self, maps: list[Tensor], geometry: Geometry) -> Tensor:
        """Project maps [B,h*w,C] to the transformer's width, one level after the other: float32 [B,S,C]."""
        # The coarsest level is a convolution of the last map.
        maps, map_hws = [*maps, maps[-1]], [*geometry.level_hw[:-1], geometry.level_hw[-2]]
        insides = split_levels(geometry.token_valid.to(torch.float32)[..., None], geometry.level_hw)
        return torch.cat(
            [
                project(x, map_hw, inside)
                for project, x, map_hw, inside in zip(self.input_proj, maps, map_hws, insides, strict=True)
            ],
            dim=1,
        )


class TextEncoder(nn.Module):
    """The exported text half: INPUT_IDS, POSITION_IDS, PHRASE_IDS -> TEXT_FEATURES."""

    def __init__(self, model: GroundingDino) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, position_ids: Tensor, phrase_ids: Tensor) -> Tensor:
        return self.model.encode_text(input_ids, position_ids, phrase_ids)


class Detector(nn.Module):
    """The exported image half: PIXELS, VALID_HW, TEXT_FEATURES, POSITION_IDS, PHRASE_IDS -> LOGITS, BOXES_CXCYWH."""

    def __init__(self, model: GroundingDino) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        pixels: Tensor,
        valid_hw: Tensor,
        text_features: Tensor,
        position_ids: Tensor,
        phrase_ids: Tensor,
    ) -> tuple[Tensor, Tensor]:
        return self.model.detect(pixels, valid_hw, text_features, position_ids, phrase_ids)
