"""Attention masks as additive log-weights.

A key's log-weight is added to its attention scores: 0 = may be attended to, -inf = may not, log(k) = the key counts
as k equal keys.  This one form serves padding, causality and cells of silence.  Shapes: B batch, T frames, L tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Memory(NamedTuple):
    """The encoder's output, as heads and decoders take it.

    states_BTD: encoder states.  log_weight_BT: see the module.  len_B: the number of frames that hold speech; these
    come first and in order.
    """

    states_BTD: Tensor
    log_weight_BT: Tensor
    len_B: Tensor

    def part(self, rows: Sequence[int] | slice) -> Memory:
        """Return the memory of the utterances `rows`."""
        return Memory(*(x[rows] for x in self))

    @classmethod
    def join(cls, parts: Sequence[Memory]) -> Memory:
        """Concatenate batches, padding them to the longest."""
        T = max(part.states_BTD.shape[1] for part in parts)
        return cls(
            torch.cat([F.pad(part.states_BTD, (0, 0, 0, T - part.states_BTD.shape[1])) for part in parts]),
            torch.cat([F.pad(p.log_weight_BT, (0, T - p.log_weight_BT.shape[1]), value=-math.inf) for p in parts]),
            torch.cat([part.len_B for part in parts]),
        )


def log_weight(may_attend: Tensor) -> Tensor:
    """Turn a boolean mask (True = may be attended to) into log-weights of the same shape."""
    return torch.zeros(may_attend.shape, device=may_attend.device).masked_fill(~may_attend, -math.inf)


def causal(L: int, device: torch.device, past: int = 0) -> Tensor:
    """Return log-weights (L, past + L) with which each token attends to itself and the tokens before it."""
    return log_weight(torch.ones(L, past + L, dtype=torch.bool, device=device).tril(past))
