"""Plain and deformable multi-head attention, with the official names.

Source: torch.nn.MultiheadAttention; GroundingDINO, models/GroundingDINO/ms_deform_attn.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdino_build.model.geometry import frame_cells


class MultiheadAttention(nn.Module):
    """Scaled dot-product attention with the parameters of torch.nn.MultiheadAttention, batch first."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend: query [B,Q,C], key and value [B,K,C], mask additive and broadcastable to [B,heads,Q,K]."""
        batch, queries = query.shape[:2]
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, weight, bias).view(batch, -1, self.num_heads, self.head_dim).transpose(1, 2)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        scores = q * self.head_dim**-0.5 @ k.transpose(-1, -2)  # [B,heads,Q,K]
        if mask is not None:
            scores = scores + mask
        attended = (scores.softmax(-1) @ v).transpose(1, 2)
        return self.out_proj(attended.reshape(batch, queries, self.num_heads * self.head_dim))


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
