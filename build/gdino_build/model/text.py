"""BERT, in which a token sees only the tokens of its own phrase, with the official checkpoint's names.

Source: GroundingDINO, models/GroundingDINO/bertwarper.py; transformers, models/bert/modeling_bert.py.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from gdino_build.model.config import BertConfig
from gdino_build.model.geometry import additive_mask


def phrase_mask(phrase_ids: Tensor) -> Tensor:
    """Let tokens i and j attend to each other exactly when their phrase ids are equal.

    Args:
        phrase_ids: int32 [B,T]; padding carries distinct negative ids, so it sees only itself.

    Returns:
        float32 [B,1,T,T], 0 where attention is allowed and MASKED elsewhere.
    """
    return additive_mask(phrase_ids[:, :, None] == phrase_ids[:, None, :])[:, None]


class BertEmbeddings(nn.Module):
    """Word, position and token-type embeddings, summed and normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_dim)
        self.position_embeddings = nn.Embedding(config.max_positions, config.hidden_dim)
        self.token_type_embeddings = nn.Embedding(2, config.hidden_dim)
        self.LayerNorm = nn.LayerNorm(config.hidden_dim, eps=1e-12)

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        words = self.word_embeddings(input_ids) + self.position_embeddings(position_ids)
        return self.LayerNorm(words + self.token_type_embeddings.weight[0])  # one segment only


class BertSelfAttention(nn.Module):
    """Multi-head attention before its output projection, which BERT's names keep apart."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_heads, config.hidden_dim // config.num_heads
        self.query = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.key = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.value = nn.Linear(config.hidden_dim, config.hidden_dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, tokens = x.shape[:2]

        def heads(projected: Tensor) -> Tensor:
            return projected.view(batch, tokens, self.num_heads, self.head_dim).transpose(1, 2)  # [B,heads,T,d]

        scores = heads(self.query(x)) @ heads(self.key(x)).transpose(-1, -2) * self.head_dim**-0.5 + mask
        attended = (scores.softmax(-1) @ heads(self.value(x))).transpose(1, 2)
        return attended.reshape(batch, tokens, self.num_heads * self.head_dim)


class BertResidual(nn.Module):
    """A projection added to its residual and normalised (`output` and `attention.output` in BERT's names)."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(in_dim, out_dim)
        self.LayerNorm = nn.LayerNorm(out_dim, eps=1e-12)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + residual)


class BertLayer(nn.Module):
    """Self-attention and feed-forward, normalised after each."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": BertSelfAttention(config), "output": BertResidual(config.hidden_dim, config.hidden_dim)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.hidden_dim, config.ffn_dim)})
        self.output = BertResidual(config.ffn_dim, config.hidden_dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, mask), x)
        return self.output(F.gelu(self.intermediate["dense"](x)), x)


class BertEncoder(nn.Module):
    """The layers, one after the other."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(config) for _ in range(config.num_layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x, mask)
        return x


class Bert(nn.Module):
    """BERT without its pooler, which GroundingDINO never reads."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config)

    def forward(self, input_ids: Tensor, position_ids: Tensor, phrase_ids: Tensor) -> Tensor:
        """Encode tokens phrase by phrase.

        Args:
            input_ids: int32 [B,T], WordPiece ids.
            position_ids: int32 [B,T], restarting at 0 in each phrase.
            phrase_ids: int32 [B,T], equal within a phrase; negative and distinct for padding.

        Returns:
            float32 [B,T,width].
        """
        return self.encoder(self.embeddings(input_ids, position_ids), phrase_mask(phrase_ids))
