"""The vectors of a batch without its padding, so that no layer computes any.

Shapes: B utterances, T frames or tokens, D width, N rows: the real ones of all utterances, one after the other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from asr.features import real_frames


class Rows:
    """Takes sequences out of their batch, (B, T, D) -> (N, D), and puts them back for what mixes places in time."""

    def __init__(self, len_B: Tensor, T: int) -> None:
        self.shape, self.len_B = (len(len_B), T), len_B
        self._padded = bool((len_B < T).any())
        if self._padded:
            self._real_M = real_frames(len_B, T).flatten()
            self._place_N = self._real_M.nonzero()[:, 0]
            within_BT = torch.minimum(torch.arange(T, device=len_B.device), len_B[:, None] - 1)
            self._row_M = (within_BT + (len_B.cumsum(0) - len_B)[:, None]).clamp(min=0).flatten()

    def pack(self, x_BTD: Tensor) -> Tensor:
        """The rows of a batch: (N, D)."""
        x_MD = x_BTD.flatten(0, 1)
        return _Pack.apply(x_MD, self._place_N, self._row_M, self._real_M) if self._padded else x_MD

    def spread(self, x_ND: Tensor) -> Tensor:
        """The batch of such rows: (B, T, D); an utterance's last row stands in its padding, whose gradient is lost."""
        x_MD = _Spread.apply(x_ND, self._place_N, self._row_M) if self._padded else x_ND
        return x_MD.unflatten(0, self.shape)

    def spread_zeros(self, x_ND: Tensor) -> Tensor:
        """The same with zeros in the padding, for what looks across an utterance's end."""
        x_MD = x_ND
        if self._padded:
            x_MD = x_ND.new_zeros(len(self._real_M), x_ND.shape[1]).index_copy(0, self._place_N, x_ND)
        return x_MD.unflatten(0, self.shape)


# Picking rows is many times faster on a CPU than adding them up, which torch would do for the gradient of picking.


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
