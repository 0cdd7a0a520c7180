"""The re-associated fusion is the original's, written in the order of its formulas."""

import torch
from torch import Tensor

from gdino_build.model.fusion import BiMultiHeadAttention
from gdino_build.model.geometry import MASKED

DIM, EMBED_DIM, HEADS = 32, 64, 4


def original_fusion(attn: BiMultiHeadAttention, x: Tensor, t: Tensor, hidden_image: Tensor) -> tuple[Tensor, Tensor]:
    """fuse_modules.py, BiMultiHeadAttention.forward(): every image token is projected to EMBED_DIM."""

    def heads(projected: Tensor) -> Tensor:
        return projected.view(*projected.shape[:2], HEADS, EMBED_DIM // HEADS).transpose(1, 2)

    def joined(attended: Tensor) -> Tensor:
        return attended.transpose(1, 2).flatten(2)

    queries = heads(attn.v_proj(x) * (EMBED_DIM // HEADS) ** -0.5)
    scores = queries @ heads(attn.l_proj(t)).transpose(2, 3)  # [B,heads,S,T]
    to_image = scores.softmax(-1) @ heads(attn.values_l_proj(t))
    towards_text = scores.transpose(2, 3).masked_fill(hidden_image[:, None, None], -torch.inf).softmax(-1)
    to_text = towards_text @ heads(attn.values_v_proj(x))
    return attn.out_v_proj(joined(to_image)), attn.out_l_proj(joined(to_text))


def test_reassociated_fusion_equals_the_original_order_of_sums() -> None:
    torch.manual_seed(0)
    attn = BiMultiHeadAttention(DIM, EMBED_DIM, HEADS).double()
    x, t = torch.randn(2, 50, DIM, dtype=torch.float64), torch.randn(2, 7, DIM, dtype=torch.float64)
    hidden = torch.zeros(2, 50, dtype=torch.bool)
    hidden[1, 40:] = True
    found = attn(x, t, hidden[..., None] * MASKED, torch.zeros(2, 1, 1, 7, dtype=torch.float64))
    for update, expected in zip(found, original_fusion(attn, x, t, hidden), strict=True):
        torch.testing.assert_close(update, expected, rtol=0, atol=1e-12)


def test_padded_text_tokens_tell_the_image_nothing() -> None:
    torch.manual_seed(0)
    attn = BiMultiHeadAttention(DIM, EMBED_DIM, HEADS)
    x, t = torch.randn(1, 20, DIM), torch.randn(1, 6, DIM)
    image_mask, text_mask = torch.zeros(1, 20, 1), torch.zeros(1, 1, 1, 6)
    text_mask[..., 4:] = MASKED
    other = t.clone()
    other[:, 4:] += 3
    to_image, to_text = attn(x, t, image_mask, text_mask)
    to_image_of_other, to_text_of_other = attn(x, other, image_mask, text_mask)
    torch.testing.assert_close(to_image, to_image_of_other, rtol=0, atol=1e-6)
    torch.testing.assert_close(to_text[:, :4], to_text_of_other[:, :4], rtol=0, atol=1e-6)
