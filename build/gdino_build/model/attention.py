"""Plain and deformable multi-head attention, with the official names.

Source: torch.nn.MultiheadAttention; GroundingDINO, models/GroundingDINO/ms_deform_attn.py.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdino_build.model.geometry import frame_cells


class MultiheadAttention(nn.Module):
    """Scaled dot-product attention with the parameters of torch.nn.MultiheadAttention, batch first.

    Queries are scaled in their weights, and what is made of one tensor is made by one product.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.dim, self.num_heads, self.head_dim = dim, num_heads, dim // num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, placed: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend to each other: queries and keys are made of placed [B,N,C], values of x [B,N,C]."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        scale = self.head_dim**-0.5
        joint = torch.cat((weights[0] * scale, weights[1])), torch.cat((biases[0] * scale, biases[1]))
        heads = self.num_heads
        queries, keys = torch.split(split_heads(F.linear(placed, *joint), 2 * heads, self.head_dim), heads, dim=1)
        values = split_heads(F.linear(x, weights[2], biases[2]), heads, self.head_dim)
        return self._attend(queries, keys, values, mask)

    def attend_to(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Attend from query [B,Q,C] to keys and values [B,heads,K,d] of `keys_and_values`; mask as in `forward`."""
        weight, bias = (parameter[: self.dim] for parameter in (self.in_proj_weight, self.in_proj_bias))
        scale = self.head_dim**-0.5
        queries = split_heads(F.linear(query, weight * scale, bias * scale), self.num_heads, self.head_dim)
        return self._attend(queries, keys, values, mask)

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Queries, keys and values [B,heads,N,d]; mask additive and broadcastable to [B,heads,Q,K]."""
        scores = queries @ keys.transpose(-1, -2)  # [B,heads,Q,K]
        if mask is not None:
            scores = scores + mask
        attended = (scores.softmax(-1) @ values).transpose(1, 2)
        return self.out_proj(attended.reshape(attended.shape[0], -1, self.dim))


def split_heads(projected: Tensor, heads: int, head_dim: int) -> Tensor:
    """[B,N,heads*d] -> [B,heads,N,d]."""
    return projected.view(projected.shape[0], -1, heads, head_dim).transpose(1, 2)


def keys_and_values(attentions: Sequence[MultiheadAttention], x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Keys and values [B,heads,K,d] of several attentions to the same x [B,K,C], by one product."""
    weight = torch.cat([one.in_proj_weight[one.dim :] for one in attentions])
    bias = torch.cat([one.in_proj_bias[one.dim :] for one in attentions])
    heads, head_dim = attentions[0].num_heads, attentions[0].head_dim
    projected = split_heads(F.linear(x, weight, bias), 2 * len(attentions) * heads, head_dim)
    parts = torch.split(projected, heads, dim=1)
    return list(zip(parts[::2], parts[1::2], strict=True))


class DeformableAttention(nn.Module):
    """Each query samples a few learned points around its reference in every level.

    Sampling is one bilinear grid_sample a level; the levels are summed as they come, so that no tensor holds
    the samples of all levels at once.
    """

    def __init__(self, dim: int, num_heads: int, num_levels: int, num_points: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.num_levels, self.num_points = num_levels, num_points
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(dim, 2 * samples)
        self.attention_weights = nn.Linear(dim, samples)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)

    def forward(
        self,
        query: Tensor,
        reference: Tensor,
        memory: Tensor,
        token_valid: Tensor,
        level_hw: list[tuple[int, int]],
    ) -> Tensor:
        """Gather from the image.

        Args:
            query: float32 [B,Q,C].
            reference: float32 [B,Q,L,2] points or [B,Q,L,4] boxes (cx, cy, w, h), in the frame of each level.
            memory: float32 [B,S,C], image tokens of all levels.
            token_valid: bool [B,S], False for padding, which reads as zero.
            level_hw: height and width of each level.

        Returns:
            float32 [B,Q,C].
        """
        batch, queries = query.shape[:2]
        heads, levels, points = self.num_heads, self.num_levels, self.num_points
        offsets = self._offsets(query)  # [B,Q,2,heads,L,P]
        weights = self.attention_weights(query).view(batch, queries, heads, levels * points).softmax(-1)
        weights = weights.transpose(1, 2).reshape(-1, 1, queries, levels * points)  # [B*heads,1,Q,L*P]

        value = self.value_proj(memory) * token_valid[..., None].to(memory.dtype)
        value = value.view(batch, -1, heads, self.head_dim).permute(0, 2, 3, 1)  # [B,heads,d,S]

        grid = 2 * self._locations(reference, offsets, level_hw) - 1  # [B,Q,2,heads,L,P], in [-1, 1]
        grid = grid.permute(0, 3, 4, 1, 5, 2).reshape(-1, levels, queries, points, 2)  # [B*heads,L,Q,P,2]

        level_sums = []
        start = 0
        for level, (height, width) in enumerate(level_hw):
            stop = start + height * width
            image = value[..., start:stop].reshape(-1, self.head_dim, height, width)  # [B*heads,d,h,w]
            samples = F.grid_sample(image, grid[:, level], padding_mode="zeros", align_corners=False)
            level_weights = weights[..., level * points : (level + 1) * points]
            level_sums.append((samples * level_weights).sum(-1))  # [B*heads,d,Q]
            start = stop
        gathered = sum(level_sums[1:], start=level_sums[0])
        return self.output_proj(gathered.view(batch, heads * self.head_dim, queries).transpose(1, 2))

    def _offsets(self, query: Tensor) -> Tensor:
        """Offsets of the sampling points, [B,Q,2,heads,L,P]: all x before all y, which no engine then has to sort."""
        heads, levels, points = self.num_heads, self.num_levels, self.num_points
        axes_first = (heads * levels * points, 2)  # the checkpoint's order is heads, levels, points, axes
        weight = self.sampling_offsets.weight.view(*axes_first, -1).transpose(0, 1).flatten(0, 1)
        bias = self.sampling_offsets.bias.view(axes_first).t().flatten()
        return F.linear(query, weight, bias).view(query.shape[0], -1, 2, heads, levels, points)

    def _locations(self, reference: Tensor, offsets: Tensor, level_hw: list[tuple[int, int]]) -> Tensor:
        """Sampling points as fractions of the level's frame, [B,Q,2,heads,L,P]."""
        reference = reference.transpose(2, 3)[..., None, :, None]  # [B,Q,2 or 4,1,L,1]
        if reference.shape[2] == 4:  # offsets are in units of the box
            return reference[:, :, :2] + offsets / self.num_points * reference[:, :, 2:] * 0.5
        return reference + offsets / frame_cells(level_hw, offsets.device).t()[:, None, :, None]
