"""Fusion: image and text tokens attend to each other, re-associated so that the image side stays narrow.

An image has about 20,000 tokens and a prompt few, so no image token is ever projected to the heads' width. With x
the image tokens, t the text tokens and the original's projections (v_proj, l_proj, values_*, out_*):

    scores      (x W_v)(t W_l)ᵀ      =  x ((t W_l) W_vᵀ)ᵀ        text keys, seen from the image's channels
    to image    P (t V_l) O_v        =  P ((t V_l) O_v)          text values, already in the image's channels
    to text     softmax(sᵀ)(x V_v)   =  (softmax(sᵀ) x) V_v      rows sum to one, so the bias passes through

The same sums in another order: exact, and without the widest tensors of the model.

Source: GroundingDINO, models/GroundingDINO/fuse_modules.py, without its clamps at ±50000 and its global maximum,
which couple the pictures of a batch and change nothing within one.
"""

import torch
from torch import Tensor, nn


class BiMultiHeadAttention(nn.Module):
    """Attention in both directions from one matrix of scores; heads are `embed_dim` wide in total."""

    def __init__(self, dim: int, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.dim, self.num_heads, self.head_dim = dim, num_heads, embed_dim // num_heads
        self.v_proj = nn.Linear(dim, embed_dim)
        self.l_proj = nn.Linear(dim, embed_dim)
        self.values_v_proj = nn.Linear(dim, embed_dim)
        self.values_l_proj = nn.Linear(dim, embed_dim)
        self.out_v_proj = nn.Linear(embed_dim, dim)
        self.out_l_proj = nn.Linear(embed_dim, dim)

    def forward(self, x: Tensor, t: Tensor, image_mask: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Compute what each side learns from the other.

        Args:
            x: float32 [B,S,C], image tokens.
            t: float32 [B,T,C], text tokens.
            image_mask: float32 [B,1,1,S], additive, hides padded image tokens from the text.
            text_mask: float32 [B,1,1,T], additive, hides padded text tokens from the image.

        Returns:
            Updates of the image tokens [B,S,C] and of the text tokens [B,T,C].
        """
        batch, text_tokens = t.shape[:2]
        dim, heads, width = self.dim, self.num_heads, self.head_dim
        flat = heads * text_tokens

        def text_heads(projected: Tensor) -> Tensor:
            return projected.view(batch, text_tokens, heads, width).transpose(1, 2)  # [B,heads,T,d]

        keys = text_heads(self.l_proj(t)) * width**-0.5
        keys_in_image = keys @ self.v_proj.weight.view(heads, width, dim)  # [B,heads,T,C]
        key_bias = (keys @ self.v_proj.bias.view(heads, width, 1)).view(batch, 1, flat)
        scores = x @ keys_in_image.reshape(batch, flat, dim).transpose(1, 2) + key_bias  # [B,S,heads*T]
        scores = scores.view(batch, -1, heads, text_tokens).transpose(1, 2)  # [B,heads,S,T]

        out_weight = self.out_v_proj.weight.view(dim, heads, width).permute(1, 2, 0)  # [heads,d,C]
        values_in_image = text_heads(self.values_l_proj(t)) @ out_weight  # [B,heads,T,C]
        attention = (scores + text_mask).softmax(-1).transpose(1, 2).reshape(batch, -1, flat)  # [B,S,heads*T]
        to_image = attention @ values_in_image.reshape(batch, flat, dim) + self.out_v_proj.bias

        attention = (scores.transpose(2, 3) + image_mask).softmax(-1)  # [B,heads,T,S]
        seen = (attention.reshape(batch, flat, -1) @ x).view(batch, heads, text_tokens, dim)
        value_weight = self.values_v_proj.weight.view(heads, width, dim).transpose(1, 2)  # [heads,C,d]
        values = seen @ value_weight + self.values_v_proj.bias.view(heads, 1, width)  # [B,heads,T,d]
        to_text = self.out_l_proj(values.transpose(1, 2).reshape(batch, text_tokens, heads * width))
        return to_image, to_text


class FusionLayer(nn.Module):
    """Normalise both sides, attend in both directions, add with a learned scale for each channel."""

    def __init__(self, dim: int, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.layer_norm_v = nn.LayerNorm(dim)
        self.layer_norm_l = nn.LayerNorm(dim)
        self.attn = BiMultiHeadAttention(dim, embed_dim, num_heads)
        self.gamma_v = nn.Parameter(torch.full((dim,), 1e-4))
        self.gamma_l = nn.Parameter(torch.full((dim,), 1e-4))

    def forward(self, x: Tensor, t: Tensor, image_mask: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        x, t = self.layer_norm_v(x), self.layer_norm_l(t)
        to_image, to_text = self.attn(x, t, image_mask, text_mask)
        return x + self.gamma_v * to_image, t + self.gamma_l * to_text
