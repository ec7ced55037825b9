"""Self-attention with relative positions: scores depend on the distance between a query and a key.

Shapes: B batch, L queries, T keys, H heads, K head width, D = H x K, X = K / 2, R = L + T distances; for the last
query, row r of these is that of key r.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.model.attention import Attend, Form, attention_weights, joined, split_heads
from asr.model.position import sinusoids_at


def distances(L: int, T: int, past: int, device: torch.device) -> Tensor:
    """Return how far before a query each key is, (R,); `past` keys precede the key of the first query."""
    return past + L - 1 - torch.arange(L + T, device=device)


def by_key(x_BHLR: Tensor) -> Tensor:
    """Turn (B, H, L, R) by distance into (B, H, L, T) by key.

    This is the relative shift of Dai et al. 2019: reading the data as rows that are one shorter shifts each row by one
    more, without a copy.
    """
    L, R = x_BHLR.shape[2:]
    return x_BHLR.flatten(2)[..., L - 1 : L * R - 1].unflatten(2, (L, R - 1))[..., : R - L]


def by_distance(x_BHLT: Tensor) -> Tensor:
    """Turn (B, H, L, T) by key into (B, H, L, R) by distance, the inverse of `by_key`; 0 where there is no key."""
    L, T = x_BHLT.shape[2:]
    return F.pad(F.pad(x_BHLT, (0, L - 1)).flatten(2), (L - 1, 1)).unflatten(2, (L, L + T))


class Shaw(Form):
    """Adds a trained vector per distance to the keys and another to the values (Shaw et al. 2018).

    score = q . (k + a[j - i]) / sqrt(K), output = sum of weight x (v + b[j - i]); distances are clipped to `clip`.
    The heads share the vectors.  The output needs the attention weights, so they are formed whatever `attend` is given.
    """

    def __init__(self, dim: int, heads: int, clip: int, dropout: float = 0.0) -> None:
        super().__init__(dropout)
        self.clip = clip
        sizes = 2 * clip + 1, dim // heads
        self.key_weight = nn.Parameter(nn.init.normal_(torch.empty(sizes), std=sizes[1] ** -0.5))
        self.value_weight = nn.Parameter(nn.init.normal_(torch.empty(sizes), std=sizes[1] ** -0.5))

    def forward(
        self, attend: Attend, q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, weight_BHLT: Tensor | None, past: int = 0
    ) -> tuple[Tensor, Tensor | None]:
        L, T, K = q_BHLK.shape[2], *k_BHTK.shape[2:]
        row_R = self.clip - distances(L, T, past, q_BHLK.device).clamp(-self.clip, self.clip)
        key_RK, value_RK = (weight.to(q_BHLK.dtype)[row_R] for weight in (self.key_weight, self.value_weight))
        score_BHLT = by_key((q_BHLK * K**-0.5) @ key_RK.t())
        attention_BHLT = attention_weights(q_BHLK, k_BHTK, joined(score_BHLT, weight_BHLT))
        kept_BHLT = self.dropout(attention_BHLT).to(v_BHTK.dtype)
        return kept_BHLT @ v_BHTK + by_distance(kept_BHLT) @ value_RK, attention_BHLT


class TransformerXL(Form):
    """Scores with sinusoids of the distance and two trained vectors added to the queries (Dai et al. 2019).

    score = ((q + u) . k + (q + v) . W r[i - j]) / sqrt(K); each layer has its own W, u and v.
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__(dropout)
        self.dim, self.heads = dim, heads
        self.distance = nn.Linear(dim, dim, bias=False)
        self.content_H1K = nn.Parameter(torch.zeros(heads, 1, dim // heads))
        self.position_H1K = nn.Parameter(torch.zeros(heads, 1, dim // heads))

    def forward(
        self, attend: Attend, q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, weight_BHLT: Tensor | None, past: int = 0
    ) -> tuple[Tensor, Tensor | None]:
        L, T, K = q_BHLK.shape[2], *k_BHTK.shape[2:]
        r_RD = torch.cat(sinusoids_at(distances(L, T, past, q_BHLK.device), self.dim), dim=1)
        r_HRK = split_heads(self.distance(r_RD.to(q_BHLK.dtype))[None], self.heads)[0]
        content_H1K, position_H1K = (x.to(q_BHLK.dtype) for x in (self.content_H1K, self.position_H1K))
        score_BHLT = by_key((q_BHLK + position_H1K) * K**-0.5 @ r_HRK.transpose(1, 2))
        return attend(q_BHLK + content_H1K, k_BHTK, v_BHTK, joined(score_BHLT, weight_BHLT), self.dropout)


class Rotary(Form):
    """Rotary embedding: pairs of elements of queries and keys are rotated by an angle proportional to the position.

    Su et al. 2021.  As complex numbers the pairs become z[X] exp(i position 10000 ** (-2 X / K)), with the real parts
    in the first half of K, so that products depend on the difference of positions.  Keys are cached after the rotation.
    """

    def place(self, x_BHTK: Tensor, first: int = 0) -> Tensor:
        T, K = x_BHTK.shape[2:]
        tables = _turns(1 << (first + T).bit_length(), K, x_BHTK.device)
        cos_TK, sin_TK = (table[first : first + T] for table in tables)
        x = x_BHTK.float()
        return torch.addcmul(x * cos_TK, x.roll(K // 2, -1), sin_TK).to(x_BHTK.dtype)


@lru_cache(maxsize=8)
def _turns(size: int, K: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the factors (T, K) of an element and of its partner in the pair, for the first `size` positions."""
    with torch.inference_mode(False):  # they serve training, too
        rate_X = torch.exp(torch.arange(K // 2, device=device) * (-2 * math.log(10_000) / K))
        angle_TX = torch.arange(size, device=device)[:, None] * rate_X
        sin_TX, cos_TX = angle_TX.sin(), angle_TX.cos()
        return torch.cat([cos_TX, cos_TX], dim=1), torch.cat([-sin_TX, sin_TX], dim=1)
