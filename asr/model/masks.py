"""Attention masks as additive log-weights.

A key's log-weight is added to its attention scores: 0 = may be attended, -inf = may not, log(k) = the key stands
for k alike.  One float form serves padding, causality and cells of silence.  Shapes: B batch, T frames, L tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Memory(NamedTuple):
    """What the encoder gives to heads and decoders.

    states_BTD, log_weight_BT (see above), len_B: frames that hold speech; they come first and in order.
    """

    states_BTD: Tensor
    log_weight_BT: Tensor
    len_B: Tensor

    def part(self, rows: Sequence[int]) -> Memory:
        """That of some utterances."""
        return Memory(*(x[rows] for x in self))

    @classmethod
    def join(cls, parts: Sequence[Memory]) -> Memory:
        """Several batches as one, padded to the longest."""
        T = max(part.states_BTD.shape[1] for part in parts)
        return cls(
            torch.cat([F.pad(part.states_BTD, (0, 0, 0, T - part.states_BTD.shape[1])) for part in parts]),
            torch.cat([F.pad(p.log_weight_BT, (0, T - p.log_weight_BT.shape[1]), value=-math.inf) for p in parts]),
            torch.cat([part.len_B for part in parts]),
        )


def log_weight(may_attend: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Turn a boolean mask (True = may attend) into log-weights of the same shape."""
    return torch.zeros(may_attend.shape, dtype=dtype, device=may_attend.device).masked_fill(~may_attend, -math.inf)


def causal(L: int, device: torch.device, past: int = 0) -> Tensor:
    """Log-weights (L, past + L) under which a token sees itself and what came before."""
    return log_weight(torch.ones(L, past + L, dtype=torch.bool, device=device).tril(past))
