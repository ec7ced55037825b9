"""Additive attention: a small network scores each pair of query and key.

Shapes: B batch, L queries, S of them at a time, T keys, H heads, K head width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from asr.model.attention import Attend, Form, joined

MOST_SUMS = 1 << 21  # elements of query + key at a time: 8 MB, and as much for their gradient


class Additive(Form):
    """Scores v . tanh(q + k), with one v for each head (Bahdanau et al. 2015).

    `attend` gets the scores as log-weights, together with queries and keys of zeros, whose products add nothing.
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__(dropout)
        K = dim // heads
        self.weight_HK = nn.Parameter(nn.init.normal_(torch.empty(heads, K), std=K**-0.5))

    def forward(
        self, attend: Attend, q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, weight_BHLT: Tensor | None, past: int = 0
    ) -> tuple[Tensor, Tensor | None]:
        size = max(1, MOST_SUMS // k_BHTK.numel())
        weight_HK1 = self.weight_HK.to(q_BHLK.dtype)[..., None]
        parts = [
            checkpoint(_scores, q_BHSK, k_BHTK, weight_HK1, use_reentrant=False, preserve_rng_state=False)
            for q_BHSK in q_BHLK.split(size, dim=2)
        ]
        score_BHLT = torch.cat(parts, dim=2)
        nothing_BHL1, nothing_BHT1 = torch.zeros_like(q_BHLK[..., :1]), torch.zeros_like(k_BHTK[..., :1])
        return attend(nothing_BHL1, nothing_BHT1, v_BHTK, joined(score_BHLT, weight_BHLT), self.dropout)


def _scores(q_BHSK: Tensor, k_BHTK: Tensor, weight_HK1: Tensor) -> Tensor:
    sum_BHSTK = q_BHSK[:, :, :, None] + k_BHTK[:, :, None]
    score_BHX1 = sum_BHSTK.tanh().flatten(2, 3) @ weight_HK1
    return score_BHX1.unflatten(2, sum_BHSTK.shape[2:4]).squeeze(4)
