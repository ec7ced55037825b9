"""Texts that are filled in over a few rounds: mask-predict, and the refinement of Mask-CTC.

Shapes: N texts, P start tokens, L tokens of a text, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from asr.lengths import within

# From tokens (N, L), some of them masked, and lengths to log-probabilities (N, L, V).
Fill = Callable[[Tensor, Tensor], Tensor]


class Filler(NamedTuple):
    """Predicts masked tokens of texts after the start tokens; the tokens `never` are not predicted."""

    fill: Fill
    prefix_NP: Tensor
    mask_id: int
    never: Sequence[int]

    def predict(self, tokens_NL: Tensor, len_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return the most probable token of each position, and its log-probability."""
        P = self.prefix_NP.shape[1]
        log_prob_NLV = self.fill(torch.cat([self.prefix_NP, tokens_NL], dim=1), len_N + P)[:, P:]
        log_prob_NLV[..., [*self.never, self.mask_id]] = -math.inf
        value_NL, token_NL = log_prob_NLV.max(-1)
        return token_NL, value_NL


class Filled(NamedTuple):
    """Tokens, and the log-probability of each when it was last predicted; both are 0 after a text's end."""

    tokens_NL: Tensor
    log_prob_NL: Tensor


@torch.inference_mode()
def mask_predict(filler: Filler, len_N: Tensor, iterations: int) -> Filled:
    """Mask-predict (Ghazvininejad et al. 2019): predict all tokens, then repeatedly those that are least certain.

    Of n tokens, n (I - i) / I are masked after round i of I, whether or not they were masked before.
    """
    real_NL = within(len_N, int(len_N.max()))
    tokens_NL = torch.full(real_NL.shape, filler.mask_id, device=len_N.device)
    log_prob_NL = torch.zeros(real_NL.shape, device=len_N.device)
    masked_NL = real_NL
    for i in range(1, iterations + 1):
        if not masked_NL.any():
            break
        token_NL, value_NL = filler.predict(torch.where(masked_NL, filler.mask_id, tokens_NL), len_N)
        tokens_NL = torch.where(masked_NL, token_NL, tokens_NL)
        log_prob_NL = torch.where(masked_NL, value_NL, log_prob_NL)
        masked_NL = lowest(log_prob_NL, real_NL, len_N * (iterations - i) // iterations)
    return Filled(tokens_NL * real_NL, log_prob_NL)


@torch.inference_mode()
def refine(filler: Filler, tokens_NL: Tensor, len_N: Tensor, masked_NL: Tensor, iterations: int) -> Filled:
    """Mask-CTC's refinement (Higuchi et al. 2020): fill in masked tokens for good, the most certain ones first.

    Of m masked tokens, m (I - i) / I are left after round i of I.
    """
    masked_NL = masked_NL & within(len_N, tokens_NL.shape[1])
    log_prob_NL = torch.zeros(tokens_NL.shape, device=len_N.device)
    count_N = masked_NL.sum(1)
    for i in range(1, iterations + 1):
        if not masked_NL.any():
            break
        token_NL, value_NL = filler.predict(torch.where(masked_NL, filler.mask_id, tokens_NL), len_N)
        left_NL = lowest(value_NL, masked_NL, count_N * (iterations - i) // iterations)
        filled_NL = masked_NL & ~left_NL
        tokens_NL = torch.where(filled_NL, token_NL, tokens_NL)
        log_prob_NL = torch.where(filled_NL, value_NL, log_prob_NL)
        masked_NL = left_NL
    return Filled(tokens_NL, log_prob_NL)


def lowest(value_NL: Tensor, among_NL: Tensor, count_N: Tensor) -> Tensor:
    """Mark the `count_N` lowest values among some positions; of equal values the first ones."""
    order_NL = value_NL.masked_fill(~among_NL, math.inf).argsort(dim=1, stable=True)
    rank_NL = torch.empty_like(order_NL)
    rank_NL.scatter_(1, order_NL, torch.arange(value_NL.shape[1], device=value_NL.device).expand_as(order_NL))
    return (rank_NL < count_N[:, None]) & among_NL
