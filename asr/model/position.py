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
    """Add fixed sinusoids; the table grows to the longest sequence seen."""

    table_TD: Tensor

    def __init__(self, dim: int, length: int = 1500) -> None:
        super().__init__()
        self.register_buffer("table_TD", sinusoids(length, dim), persistent=False)

    def forward(self, x_BTD: Tensor, at_BT: Tensor | None = None) -> Tensor:
        """Add to each vector the sinusoids of its place: `at_BT`, or its number."""
        T, D = x_BTD.shape[1:]
        reach = T if at_BT is None else int(at_BT.max()) + 1
        if len(self.table_TD) < reach:
            self.table_TD = sinusoids(2 * reach, D).to(self.table_TD)
        return x_BTD + (self.table_TD[:T] if at_BT is None else self.table_TD[at_BT]).to(x_BTD.dtype)


class LearnedPosition(nn.Module):
    """Add a trained vector per position; `start` is the position of the first token."""

    def __init__(self, dim: int, length: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(length, dim) * dim**-0.5)

    def forward(self, x_BLD: Tensor, start: int = 0) -> Tensor:
        return x_BLD + self.weight[start : start + x_BLD.shape[1]]
