"""Positions added to a sequence of vectors.  Shapes: B batch, T frames or tokens, D width, X = D / 2."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoids(T: int, D: int) -> Tensor:
    """Return sinusoidal positions (T, D), sines in the first half of D and cosines in the second (Vaswani et al. 2017).

    Their rates go from 1 to 1 / 10,000, as in the authors' tensor2tensor and in Whisper; the paper's stop short of
    that.
    """
    table_TD = torch.empty(T, D)
    if table_TD.is_meta:  # only the model's sizes are wanted
        return table_TD
    return torch.cat(sinusoids_at(torch.arange(T), D), dim=1, out=table_TD)


def sinusoids_at(position_T: Tensor, D: int) -> tuple[Tensor, Tensor]:
    """Return the sines and cosines of any positions, even negative ones, each (T, D / 2)."""
    rate_X = torch.exp(torch.arange(D // 2, device=position_T.device) * (-math.log(10_000) / max(D // 2 - 1, 1)))
    angle_TX = position_T[:, None] * rate_X
    return angle_TX.sin(), angle_TX.cos()


class NoPosition(nn.Module):
    """Only scales vectors by `scale`: for layers that need no positions, or whose attention handles them itself."""

    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x_BTD: Tensor, start: int = 0) -> Tensor:
        return x_BTD * self.scale


class SinusoidalPosition(nn.Module):
    """Adds fixed sinusoids to `scale` x vectors; the table grows with the longest sequence seen.

    first: the table's row for the first vector of a sequence.  start: how many vectors came before the given ones.
    """

    table_TD: Tensor

    def __init__(self, dim: int, *, length: int = 1500, first: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        self.first, self.scale = first, scale
        self.register_buffer("table_TD", sinusoids(first + length, dim), persistent=False)

    def forward(self, x_BTD: Tensor, start: int = 0) -> Tensor:
        T, first = x_BTD.shape[1], self.first + start
        return torch.add(self._table(first + T)[first : first + T].to(x_BTD.dtype), x_BTD, alpha=self.scale)

    def at(self, x_ND: Tensor, place_N: Tensor) -> Tensor:
        """Add the sinusoids of vectors that each come after `place_N` others."""
        table_TD = self._table(self.first + int(place_N.max()) + 1)
        return torch.add(table_TD[self.first + place_N].to(x_ND.dtype), x_ND, alpha=self.scale)

    def _table(self, T: int) -> Tensor:
        if len(self.table_TD) < T:
            self.table_TD = sinusoids(2 * T, self.table_TD.shape[1]).to(self.table_TD)
        return self.table_TD


class LearnedPosition(nn.Module):
    """Adds a trained vector per position to `scale` x vectors; `start` is the position of the first vector."""

    def __init__(self, dim: int, length: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(length, dim), std=dim**-0.5))

    def forward(self, x_BLD: Tensor, start: int = 0) -> Tensor:
        return torch.add(self.weight[start : start + x_BLD.shape[1]], x_BLD, alpha=self.scale)


Position = SinusoidalPosition | LearnedPosition | NoPosition
