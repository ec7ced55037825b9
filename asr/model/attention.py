"""Multi-head attention (Vaswani et al. 2017) over keys with log-weights.

Shapes: B batch, T keys, L queries, D width, H heads, K head width, E = 3 x D, N rows (see asr.model.rows),
X = B x H.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.model.layers import Dropout
from asr.model.masks import causal
from asr.model.rows import Rows

KeyValue = tuple[Tensor, Tensor]


NO_DROPOUT = Dropout(0.0)


class Attend(Protocol):
    """Computes attention; log-weights broadcast to (B, H, L, T).  Returns outputs (B, H, L, K) and perhaps weights.

    `dropout` zeroes weights before they meet the values; the weights that are returned are complete.
    """

    def __call__(
        self, q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, weight_BHLT: Tensor | None, dropout: Dropout = NO_DROPOUT
    ) -> tuple[Tensor, Tensor | None]: ...


def fused(
    q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, weight_BHLT: Tensor | None, dropout: Dropout = NO_DROPOUT
) -> tuple[Tensor, Tensor | None]:
    """Attend with torch's fused kernel, which never forms the attention weights.

    On a CPU torch has none with dropout, so that `products` takes its place.
    """
    if dropout.share and q_BHLK.device.type == "cpu":
        return products(q_BHLK, k_BHTK, v_BHTK, weight_BHLT, dropout)
    if weight_BHLT is not None:
        weight_BHLT = weight_BHLT.to(q_BHLK.dtype)
    y_BHLK = F.scaled_dot_product_attention(q_BHLK, k_BHTK, v_BHTK, attn_mask=weight_BHLT, dropout_p=dropout.share)
    return y_BHLK, None


def explicit(
    q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, weight_BHLT: Tensor | None, dropout: Dropout = NO_DROPOUT
) -> tuple[Tensor, Tensor | None]:
    """Attend like `fused` and return the attention weights (B, H, L, T) in float32, for losses on them and plots."""
    attention_BHLT = attention_weights(q_BHLK, k_BHTK, weight_BHLT)
    return dropout(attention_BHLT).to(v_BHTK.dtype) @ v_BHTK, attention_BHLT


def attention_weights(q_BHLK: Tensor, k_BHTK: Tensor, weight_BHLT: Tensor | None) -> Tensor:
    """Return the softmax over keys of scaled dot products plus log-weights, (B, H, L, T) in float32."""
    score_BHLT = (q_BHLK @ k_BHTK.transpose(-1, -2)).float() * q_BHLK.shape[-1] ** -0.5
    if weight_BHLT is not None:
        score_BHLT = score_BHLT + weight_BHLT
    return score_BHLT.softmax(-1)


def products(
    q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, weight_BHLT: Tensor | None, dropout: Dropout = NO_DROPOUT
) -> tuple[Tensor, Tensor | None]:
    """Attend like `fused` by matrix products in the inputs' own precision: for training in bfloat16 on a CPU.

    There the fused kernel multiplies bfloat16 as float32.  One product scales the scores and adds the log-weights; its
    factors are copied into order first, which costs less than what torch does with them as they lie.
    """
    B, H, _, K = q_BHLK.shape
    q_XLK, k_XTK, v_XTK = (x.contiguous().flatten(0, 1) for x in (q_BHLK, k_BHTK, v_BHTK))
    score_XLT = torch.baddbmm(_for_heads(weight_BHLT, q_BHLK), q_XLK, k_XTK.transpose(1, 2), alpha=K**-0.5)
    return (dropout(score_XLT.softmax(-1)) @ v_XTK).unflatten(0, (B, H)), None


def _for_heads(weight_BHLT: Tensor | None, q_BHLK: Tensor) -> Tensor:
    """Return log-weights that broadcast to (X, L, T), in the precision of the queries."""
    if weight_BHLT is None:
        return q_BHLK.new_zeros(1, 1, 1)
    return weight_BHLT.to(q_BHLK.dtype).expand(*q_BHLK.shape[:2], -1, -1).flatten(0, 1)


def blockwise(
    q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, weight_BHLT: Tensor | None, dropout: Dropout = NO_DROPOUT
) -> tuple[Tensor, Tensor | None]:
    """Attend like `products`, for decoding, without gradients or dropout: blocks of queries reuse a buffer for scores.

    The scores of all queries would not fit into the caches, and allocating memory costs more than writing into it.
    """
    B, H, L, K = q_BHLK.shape
    T, size = k_BHTK.shape[2], min(_BLOCK, L)
    q_XLK, v_XTK = (q_BHLK * K**-0.5).flatten(0, 1), v_BHTK.flatten(0, 1)
    k_XKT = k_BHTK.flatten(0, 1).transpose(1, 2)
    weight_XLT = _for_heads(weight_BHLT, q_BHLK)
    scores = q_XLK.new_empty(B * H * size * T)
    y_BLHK = q_BHLK.new_empty(B, L, H, v_BHTK.shape[3])
    for at in range(0, L, size):
        rows, count = slice(at, at + size), min(size, L - at)
        score_XLT = scores[: B * H * count * T].view(B * H, count, T)
        each = weight_XLT if weight_XLT.shape[1] == 1 else weight_XLT[:, rows]
        torch.baddbmm(each, q_XLK[:, rows], k_XKT, out=score_XLT)
        torch.softmax(score_XLT, -1, out=score_XLT)
        y_BLHK[:, rows] = (score_XLT @ v_XTK).unflatten(0, (B, H)).transpose(1, 2)
    return y_BLHK.transpose(1, 2), None


_BLOCK = 128  # queries


def joined(score_BHLT: Tensor, weight_BHLT: Tensor | None) -> Tensor:
    """Add log-weights to scores that do not come from products; the sum serves as log-weights."""
    return score_BHLT if weight_BHLT is None else score_BHLT + weight_BHLT


def split_heads(x_BTD: Tensor, heads: int) -> Tensor:
    """Reshape (B, T, D) to (B, H, T, K)."""
    return x_BTD.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x_BHTK: Tensor) -> Tensor:
    """Reshape (B, H, T, K) to (B, T, D)."""
    return x_BHTK.transpose(1, 2).flatten(2)


class Form(nn.Module):
    """How attention scores are computed; this class uses scaled dot products alone, as Vaswani et al. 2017.

    Subclasses hand `attend` other queries, keys or log-weights, so that every way to compute attention serves them all.
    dropout: the share of attention weights that is zeroed in training.
    """

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)

    def place(self, x_BHTK: Tensor, first: int = 0) -> Tensor:
        """Return queries, or keys as they are cached, for positions starting at `first`."""
        return x_BHTK

    def forward(
        self, attend: Attend, q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, weight_BHLT: Tensor | None, past: int = 0
    ) -> tuple[Tensor, Tensor | None]:
        """Return what `attend` returns; `past` keys precede the key of the first query."""
        return attend(q_BHLK, k_BHTK, v_BHTK, weight_BHLT, self.dropout)


class SelfAttention(nn.Module):
    """Self-attention; queries, keys and values come from one matrix product."""

    def __init__(self, dim: int, heads: int, form: Form | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.attend: Attend = fused
        self.form = form or Form()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def _heads(self, qkv_BTE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each (B, H, T, K)."""
        q, k, v = (split_heads(part, self.heads) for part in qkv_BTE.chunk(3, dim=-1))
        return q, k, v

    def forward(self, x_ND: Tensor, rows: Rows, weight_BHTT: Tensor | None, beyond_BCD: Tensor | None = None) -> Tensor:
        """Attend from each sequence to itself and to the cells `beyond_BCD`, whose log-weights come last."""
        q_BHTK, k_BHTK, v_BHTK = self._heads(rows.spread(self.qkv(x_ND)))
        q_BHTK, k_BHTK = self.form.place(q_BHTK), self.form.place(k_BHTK)
        if beyond_BCD is not None:
            _, *more = self._heads(self.qkv(beyond_BCD))
            k_BHTK, v_BHTK = (torch.cat(pair, dim=2) for pair in zip((k_BHTK, v_BHTK), more, strict=True))
        y_BHTK, _ = self.form(self.attend, q_BHTK, k_BHTK, v_BHTK, weight_BHTT)
        return self.out(rows.pack(join_heads(y_BHTK)))

    def step(self, x_NLD: Tensor, past: KeyValue, length: int, weight_N11C: Tensor | None = None) -> Tensor:
        """Attend from L new tokens to themselves and the `length` before them; their keys and values go into `past`.

        weight_N11C: log-weights of all these keys, if some of them are padding.
        """
        L = x_NLD.shape[1]
        q_NHLK, k_NHLK, v_NHLK = self._heads(self.qkv(x_NLD))
        q_NHLK, k_NHLK = self.form.place(q_NHLK, length), self.form.place(k_NHLK, length)
        for cache_CNHK, new_NHLK in zip(past, (k_NHLK, v_NHLK), strict=True):
            cache_CNHK[length : length + L] = new_NHLK.permute(2, 0, 1, 3)
        k_NHCK, v_NHCK = (cache_CNHK[: length + L].permute(1, 2, 0, 3) for cache_CNHK in past)
        weight_NHLC = joined(causal(L, x_NLD.device, length), weight_N11C) if L > 1 else weight_N11C
        y_NHLK, _ = self.form(self.attend, q_NHLK.to(k_NHCK.dtype), k_NHCK, v_NHCK, weight_NHLC, length)
        return self.out(join_heads(y_NHLK))


class CrossAttention(nn.Module):
    """Attention from tokens to encoder states; `attend` is for search, where each token reads the keys again."""

    def __init__(self, dim: int, heads: int, form: Form) -> None:
        super().__init__()
        self.heads = heads
        self.attend: Attend = fused
        self.form = form
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def project_memory(self, states_BTD: Tensor) -> KeyValue:
        """Return keys and values of the encoder states, each (B, H, T, K); needed once per utterance."""
        k, v = (split_heads(part, self.heads) for part in self.key_value(states_BTD).chunk(2, dim=-1))
        return k, v

    def forward(
        self, x_BLD: Tensor, memory: KeyValue, weight_B11T: Tensor | None, attend: Attend
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output (B, L, D) and the weights that `attend` gives; keys may have a lower precision."""
        q_BHLK = split_heads(self.query(x_BLD), self.heads).to(memory[0].dtype)
        y_BHLK, attention = self.form(attend, q_BHLK, *memory, weight_B11T)
        return self.out(join_heads(y_BHLK)), attention
