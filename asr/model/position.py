"""Positions that are added to a sequence of vectors.  Shapes: B batch, T frames or tokens, D width."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoids(T: int, D: int) -> Tensor:
    """Sinusoidal positions (T, D) of Vaswani et al. 2017, sines in the first half of D and cosines in the second."""
    rate_X = torch.exp(torch.arange(D // 2) * (-math.log(10_000) / max(D // 2 - 1, 1)))
    angle_TX = torch.arange(T)[:, None] * rate_X
    return torch.cat([angle_TX.sin(), angle_TX.cos()], dim=1)


class SinusoidalPosition(nn.Module):
    """Add fixed sinusoids to `scale` x vectors; the table grows to the longest sequence seen.

    `first` is the row of a sequence's first vector; `start` counts the vectors that came before the given ones.
    """

    table_TD: Tensor

    def __init__(self, dim: int, *, length: int = 1500, first: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        self.first, self.scale = first, scale
        self.register_buffer("table_TD", sinusoids(first + length, dim), persistent=False)

    def forward(self, x_BTD: Tensor, start: int = 0, at_BT: Tensor | None = None) -> Tensor:
        """Add to each vector the sinusoids of its place: `at_BT`, or its number after `start`."""
        T, D = x_BTD.shape[1:]
        reach = self.first + (start + T if at_BT is None else int(at_BT.max()) + 1)
        if len(self.table_TD) < reach:
            self.table_TD = sinusoids(2 * reach, D).to(self.table_TD)
        begin = self.first + start
        place_TD = self.table_TD[begin : begin + T] if at_BT is None else self.table_TD[self.first + at_BT]
        return torch.add(place_TD.to(x_BTD.dtype), x_BTD, alpha=self.scale)


class LearnedPosition(nn.Module):
    """Add a trained vector per position to `scale` x vectors; `start` is the position of the first one."""

    def __init__(self, dim: int, length: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.randn(length, dim) * dim**-0.5)

    def forward(self, x_BLD: Tensor, start: int = 0) -> Tensor:
        return torch.add(self.weight[start : start + x_BLD.shape[1]], x_BLD, alpha=self.scale)


Position = SinusoidalPosition | LearnedPosition
