"""Fusion: image and text tokens attend to each other, re-associated so that the image side stays narrow.

An image has about 20,000 tokens and a prompt few, so no image token is ever projected to the heads' width. With x
the image tokens, t the text tokens and the original's projections (v_proj, l_proj, values_*, out_*), for each head:

    scores      (x W_v)(t W_l)ᵀ            =  x (t (W_l W_vᵀ))ᵀ        text keys, seen from the image's channels
    to image    P (t V_l) O_v              =  P (t (V_l O_v))          text values, already in the image's channels
    to text     softmax(sᵀ)(x V_v) O_l     =  (softmax(sᵀ) x)(V_v O_l)  rows sum to one, so the bias passes through

The same sums in another order: exact, and without the widest tensors of the model. The products in brackets are of
weights alone: an exported graph holds three matrices in place of six.

Source: GroundingDINO, models/GroundingDINO/fuse_modules.py, without its clamps at ±50000 and its global maximum,
which couple the pictures of a batch and change nothing within one.
"""

import torch
import torch.nn.functional as F
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
            image_mask: float32 [B,S,1], additive, hides padded image tokens from the text.
            text_mask: float32 [B,1,1,T], additive, hides padded text tokens from the image.

        Returns:
            Updates of the image tokens [B,S,C] and of the text tokens [B,T,C].
        """
        batch, text_tokens = t.shape[:2]
        heads, flat = self.num_heads, self.num_heads * text_tokens

        projected = F.linear(t, *self._keys_with_values()).view(batch, text_tokens, 2 * heads, self.dim)
        keys, values = (  # [B,heads*T,C], in the image's channels
            part.reshape(batch, flat, self.dim) for part in torch.split(projected.transpose(1, 2), heads, dim=1)
        )
        # What hides a text token from the image is added here: to the text's side it is the same at every image token.
        key_bias = (F.linear(t, *self._key_bias()).transpose(1, 2) + text_mask[:, 0]).reshape(batch, 1, flat)
        scores = x @ keys.transpose(1, 2) + key_bias  # [B,S,heads*T]

        attention = scores.view(batch, -1, heads, text_tokens).softmax(-1).view(batch, -1, flat)
        to_image = attention @ values + self.out_v_proj.bias

        attention = (scores + image_mask).softmax(1)  # over the image's tokens, where they are: nothing is turned
        seen = (attention.transpose(1, 2) @ x).view(batch, heads, text_tokens, self.dim)
        seen = seen.transpose(1, 2).reshape(batch, text_tokens, heads * self.dim)
        return to_image, F.linear(seen, *self._out_of_seen())

    def _keys_with_values(self) -> tuple[Tensor, Tensor]:
        """Weight [2*heads*C,C] and bias that turn text tokens into keys and values in the image's channels."""
        out = self._by_head(self.out_v_proj.weight.t())  # [heads,d,C]
        parts = [
            (self.l_proj, self._by_head(self.v_proj.weight * self.head_dim**-0.5)),
            (self.values_l_proj, out),
        ]
        weights, biases = [], []
        for projection, into_image in parts:
            turned = into_image.transpose(1, 2)  # [heads,C,d]
            weights.append(_multiply(turned, self._by_head(projection.weight)).flatten(0, 1))
            biases.append(_multiply(turned, self._by_head(projection.bias[:, None])).flatten())
        return torch.cat(weights), torch.cat(biases)

    def _key_bias(self) -> tuple[Tensor, Tensor]:
        """Weight [heads,C] and bias [heads] of what each text token adds to its scores with all image tokens."""
        bias = self._by_head(self.v_proj.bias[:, None] * self.head_dim**-0.5).transpose(1, 2)  # [heads,1,d]
        weight = _multiply(bias, self._by_head(self.l_proj.weight))[:, 0]
        return weight, _multiply(bias, self._by_head(self.l_proj.bias[:, None])).flatten()

    def _out_of_seen(self) -> tuple[Tensor, Tensor]:
        """Weight [C,heads*C] and bias that turn what the heads saw, in the image's channels, into text updates."""
        out = self._by_head(self.out_l_proj.weight.t()).transpose(1, 2)  # [heads,C,d]
        weight = _multiply(out, self._by_head(self.values_v_proj.weight))  # [heads, C of text, C of image]
        bias = _multiply(self.out_l_proj.weight, self.values_v_proj.bias[:, None])[:, 0] + self.out_l_proj.bias
        return weight.transpose(0, 1).flatten(1), bias

    def _by_head(self, rows: Tensor) -> Tensor:
        """[heads*d,N] -> [heads,d,N]."""
        return rows.view(self.num_heads, self.head_dim, -1)


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """Product of weights, in FP32 also where they are FP16."""
    wide = torch.promote_types(a.dtype, torch.float32)
    return (a.to(wide) @ b.to(wide)).to(a.dtype)


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
