"""The vectors of a batch without its padding, so that no layer spends time on padding.

Shapes: B utterances, T frames or tokens, D width, N rows: the real vectors of all utterances, one after the other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from asr.lengths import within


class Rows:
    """Packs the real vectors of a batch, (B, T, D) -> (N, D), and spreads them again for layers that mix positions."""

    def __init__(self, len_B: Tensor, T: int) -> None:
        self.shape, self.len_B = (len(len_B), T), len_B
        self._padded = bool((len_B < T).any())
        if self._padded:
            self._real_M = within(len_B, T).flatten()
            self._place_N = self._real_M.nonzero()[:, 0]
            within_BT = torch.minimum(torch.arange(T, device=len_B.device), len_B[:, None] - 1)
            self._row_M = (within_BT + (len_B.cumsum(0) - len_B)[:, None]).clamp(min=0).flatten()

    def pack(self, x_BTD: Tensor) -> Tensor:
        """Return the rows (N, D) of a batch."""
        x_MD = x_BTD.flatten(0, 1)
        return _Pack.apply(x_MD, self._place_N, self._row_M, self._real_M) if self._padded else x_MD

    def spread(self, x_ND: Tensor) -> Tensor:
        """Return rows as a batch (B, T, D); the padding repeats an utterance's last row and passes no gradient back."""
        x_MD = _Spread.apply(x_ND, self._place_N, self._row_M) if self._padded else x_ND
        return x_MD.unflatten(0, self.shape)

    def spread_zeros(self, x_ND: Tensor) -> Tensor:
        """Return rows as a batch with zeros in the padding, for layers that look beyond the end of an utterance."""
        x_MD = x_ND
        if self._padded:
            x_MD = x_ND.new_zeros(len(self._real_M), x_ND.shape[1]).index_copy(0, self._place_N, x_ND)
        return x_MD.unflatten(0, self.shape)


# torch's gradient of picking rows adds rows up; on a CPU, picking by the inverse index is many times faster.


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_MD: Tensor, place_N: Tensor, row_M: Tensor, real_M: Tensor) -> Tensor:
        ctx.save_for_backward(row_M, real_M)
        return x_MD.index_select(0, place_N)

    @staticmethod
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, None, None, None]:
        row_M, real_M = ctx.saved_tensors
        return grad_ND.index_select(0, row_M).mul_(real_M[:, None]), None, None, None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, place_N: Tensor, row_M: Tensor) -> Tensor:
        ctx.save_for_backward(place_N)
        return x_ND.index_select(0, row_M)

    @staticmethod
    def backward(ctx: Any, grad_MD: Tensor) -> tuple[Tensor, None, None]:
        (place_N,) = ctx.saved_tensors
        return grad_MD.index_select(0, place_N), None, None
