"""Encoder, two-stage proposals and decoder, with the official names.

Source: GroundingDINO, models/GroundingDINO/transformer.py, transformer_vanilla.py and groundingdino.py.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdino_build.model.attention import DeformableAttention, MultiheadAttention, keys_and_values
from gdino_build.model.config import ModelConfig
from gdino_build.model.fusion import FusionLayer
from gdino_build.model.geometry import MASKED, Geometry, additive_mask, sine_angles

_EMBEDDED_ORDER = [1, 0, 2, 3]  # where cx, cy, w and h are in the original's embedding of a box
_SIGMOID_EPS = 1e-3  # the original's; Hugging Face has 1e-5


def inverse_sigmoid(x: Tensor) -> Tensor:
    """Logit of x in [0, 1], finite at both ends."""
    return torch.log(x.clamp(min=_SIGMOID_EPS) / (1 - x).clamp(min=_SIGMOID_EPS))


def contrastive_logits(x: Tensor, text: "TextTokens") -> Tensor:
    """Score each of x [B,N,C] against each text token, [B,N,T]; about MASKED for padding."""
    return x @ text.features.transpose(1, 2) + text.mask[:, 0]


class Mlp(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int) -> None:
        super().__init__()
        dims = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class PlaceHead(Mlp):
    """Two linear layers that embed boxes from sines and cosines of their sides.

    The original has those of cy, cx, w and h one after the other, sines and cosines in turn. Here the columns of the
    first weight are sorted instead.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(2 * dim, dim, dim, 2)

    def forward(self, sines: Tensor) -> Tensor:
        """[B,Q,4,C/2], of cx, cy, w and h all sines before all cosines, to [B,Q,C]."""
        first, second = cast("list[nn.Linear]", list(self.layers))
        by_channel = first.weight.view(first.out_features, 4, -1, 2)  # the last axis: sine, cosine
        weight = by_channel[:, _EMBEDDED_ORDER].transpose(2, 3).reshape(first.out_features, -1)
        return second(F.relu(F.linear(sines.view(-1, sines.shape[1], first.in_features), weight, first.bias)))


@dataclass(frozen=True, kw_only=True)
class TextTokens:
    """The text side: features [B,T,C], additive padding mask [B,1,1,T], phrase mask [B,1,T,T], positions [B,T,C]."""

    features: Tensor
    mask: Tensor
    phrase_mask: Tensor
    position: Tensor


class TextLayer(nn.Module):
    """Self-attention within phrases."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.self_attn = MultiheadAttention(dim, config.fusion_heads)
        self.linear1 = nn.Linear(dim, config.fusion_dim)
        self.linear2 = nn.Linear(config.fusion_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, t: Tensor, position: Tensor, mask: Tensor) -> Tensor:
        placed = t + position
        t = self.norm1(t + self.self_attn(placed, t, mask))
        return self.norm2(t + self.linear2(F.relu(self.linear1(t))))


class EncoderLayer(nn.Module):
    """Deformable self-attention over the image."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.self_attn = DeformableAttention(dim, config.num_heads, config.num_levels, config.num_points)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, config.ffn_dim)
        self.linear2 = nn.Linear(config.ffn_dim, dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, geometry: Geometry) -> Tensor:
        x = self.norm1(x + self.self_attn(x + position, reference, x, geometry.token_valid, geometry.level_hw))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class Encoder(nn.Module):
    """Layers of fusion, text self-attention and image self-attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        count = config.num_encoder_layers
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(count))
        self.text_layers = nn.ModuleList(TextLayer(config) for _ in range(count))
        self.fusion_layers = nn.ModuleList(
            FusionLayer(config.hidden_dim, config.fusion_dim, config.fusion_heads) for _ in range(count)
        )

    def forward(self, x: Tensor, position: Tensor, geometry: Geometry, text: TextTokens) -> tuple[Tensor, Tensor]:
        """Refine image tokens [B,S,C] and text features [B,T,C]."""
        t = text.features
        image_mask = additive_mask(geometry.token_valid)[..., None]
        reference = geometry.reference_points
        for layer, text_layer, fusion_layer in zip(self.layers, self.text_layers, self.fusion_layers, strict=True):
            x, t = fusion_layer(x, t, image_mask, text.mask)
            t = text_layer(t, text.position, text.phrase_mask)
            x = layer(x, position, reference, geometry)
        return x, t


class DecoderLayer(nn.Module):
    """Queries attend to each other, to the text and to the image."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.cross_attn = DeformableAttention(dim, config.num_heads, config.num_levels, config.num_points)
        self.norm1 = nn.LayerNorm(dim)
        self.ca_text = MultiheadAttention(dim, config.num_heads)
        self.catext_norm = nn.LayerNorm(dim)
        self.self_attn = MultiheadAttention(dim, config.num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, config.ffn_dim)
        self.linear2 = nn.Linear(config.ffn_dim, dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(
        self,
        y: Tensor,
        position: Tensor,
        reference: Tensor,
        memory: Tensor,
        geometry: Geometry,
        text_side: tuple[Tensor, Tensor],
        text_mask: Tensor,
    ) -> Tensor:
        """Update queries [B,Q,C].

        Args:
            y: float32 [B,Q,C].
            position: float32 [B,Q,C], embedding of their boxes.
            reference: float32 [B,Q,L,4], their boxes in the frame of each level.
            memory: float32 [B,S,C], encoded image tokens.
            geometry: of the image tokens.
            text_side: this layer's keys and values of the text, see `keys_and_values`.
            text_mask: float32 [B,1,1,T], additive.
        """
        y = self.norm2(y + self.self_attn(y + position, y))
        y = self.catext_norm(y + self.ca_text.attend_to(y + position, *text_side, text_mask))
        gathered = self.cross_attn(y + position, reference, memory, geometry.token_valid, geometry.level_hw)
        y = self.norm1(y + gathered)
        return self.norm3(y + self.linear2(F.relu(self.linear1(y))))


class Decoder(nn.Module):
    """Queries refined layer by layer, each layer moving its reference boxes."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dim = config.hidden_dim
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_decoder_layers))
        self.norm = nn.LayerNorm(self.dim)
        self.ref_point_head = PlaceHead(self.dim)

    def forward(
        self, y: Tensor, boxes: Tensor, memory: Tensor, geometry: Geometry, text: TextTokens, box_head: Mlp
    ) -> list[tuple[Tensor, Tensor]]:
        """Run the layers.

        Args:
            y: float32 [B,Q,C], queries.
            boxes: float32 [B,Q,4], cx, cy, w, h of the proposals, relative to the picture.
            memory: float32 [B,S,C], encoded image tokens.
            geometry: of the image tokens.
            text: the encoded text.
            box_head: predicts the step of a box from a query.

        Returns:
            For each layer, normalised queries [B,Q,C] and the boxes [B,Q,4] that they refine.
        """
        to_frame = geometry.valid_ratio.repeat(1, 1, 2)[:, None]  # [B,1,L,4]
        layers = cast("list[DecoderLayer]", list(self.layers))
        text_sides = keys_and_values([layer.ca_text for layer in layers], text.features)
        states = []
        for layer, text_side in zip(layers, text_sides, strict=True):
            reference = boxes.detach()[:, :, None] * to_frame  # [B,Q,L,4]
            angle = sine_angles(boxes.detach() * (2 * math.pi), self.dim // 2)  # [B,Q,4,C/4]
            position = self.ref_point_head(torch.cat((angle.sin(), angle.cos()), dim=-1))
            y = layer(y, position, reference, memory, geometry, text_side, text.mask)
            states.append((self.norm(y), boxes))
            boxes = (box_head(y) + inverse_sigmoid(boxes.detach())).sigmoid()
        return states


class Transformer(nn.Module):
    """Everything between the projected feature maps and the decoder's states."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dim = dim = config.hidden_dim
        self.num_queries = config.num_queries
        self.level_embed = nn.Parameter(torch.zeros(config.num_levels, dim))
        self.encoder = Encoder(config)
        self.enc_output = nn.Linear(dim, dim)
        self.enc_output_norm = nn.LayerNorm(dim)
        self.enc_out_bbox_embed = Mlp(dim, dim, 4, 3)
        self.tgt_embed = nn.Embedding(config.num_queries, dim)
        self.decoder = Decoder(config)

    def encode(self, x: Tensor, geometry: Geometry, text: TextTokens) -> tuple[Tensor, Tensor]:
        """Encode image tokens [B,S,C] and text; returns memory [B,S,C] and text features [B,T,C]."""
        position = geometry.position + self.level_embed[geometry.level]
        return self.encoder(x, position, geometry, text)

    def candidates(self, memory: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
        """Turn every image token into a candidate object.

        Returns:
            Features [B,S,C] and anchors as logits [B,S,4]. Tokens at the border have zero features before the
            projection, and an anchor whose sigmoid is 1 (the original's is infinite); so has padding.
        """
        usable = geometry.proposable[..., None].to(memory.dtype)
        anchor = geometry.anchor.clamp(0.005, 0.995)  # acts on unusable anchors only: the margin is 0.01
        logits = torch.log(anchor / (1 - anchor)) * usable - MASKED * (1 - usable)
        return self.enc_output_norm(self.enc_output(memory * usable)), logits

    def proposal_scores(self, features: Tensor, text: TextTokens, geometry: Geometry) -> Tensor:
        """How well each candidate fits the text, [B,S]; about MASKED for padding, which the original does not have."""
        return contrastive_logits(features, text).amax(-1) + additive_mask(geometry.token_valid)

    def propose(
        self, features: Tensor, anchor_logits: Tensor, text: TextTokens, geometry: Geometry
    ) -> tuple[Tensor, Tensor]:
        """Keep the candidates that fit the text best.

        Returns:
            Their indices int64 [B,Q], by falling score, and boxes [B,Q,4] in [0, 1].
        """
        scores = self.proposal_scores(features, text, geometry)
        indices = scores.topk(self.num_queries, dim=1).indices
        return indices, self.boxes_of(indices, features, anchor_logits)

    def boxes_of(self, indices: Tensor, features: Tensor, anchor_logits: Tensor) -> Tensor:
        """Boxes [B,Q,4] of the chosen candidates; the box head runs on these alone."""

        def chosen(x: Tensor, width: int) -> Tensor:
            return x.gather(1, indices[..., None].expand(-1, -1, width))

        steps = self.enc_out_bbox_embed(chosen(features, self.dim))
        return (steps + chosen(anchor_logits, 4)).sigmoid()
