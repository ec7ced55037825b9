"""Positions that are added to a sequence of vectors.  Shapes: B batch, T frames or tokens, D width."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Places(NamedTuple):
    """Where vectors stand in the whole sequence (B, T), and how many neighbours each stands for, itself included."""

    at_BT: Tensor
    width_BT: Tensor


def sinusoids(T: int, D: int) -> Tensor:
    """Sinusoidal positions (T, D) of Vaswani et al. 2017, sines in the first half of D and cosines in the second."""
    table_TD = torch.empty(T, D)
    if table_TD.is_meta:  # only the sizes of a model are asked for
        return table_TD
    angle_TX = torch.arange(T)[:, None] * rates(D)
    return torch.cat([angle_TX.sin(), angle_TX.cos()], dim=1, out=table_TD)


def rates(D: int) -> Tensor:
    """The frequencies (D / 2,) of the sinusoids, in radians for a place."""
    return torch.exp(torch.arange(D // 2) * (-math.log(10_000) / max(D // 2 - 1, 1)))


def damping(width_W: Tensor, D: int) -> Tensor:
    """What sinusoids (W, D) are multiplied by where one place stands for `width` neighbours.

    KEPT of a place's own sinusoids and the rest of their mean over the neighbours, which is the same with each
    frequency damped (Dirichlet's kernel).  Without that, attention with an eye for nearby places takes the neighbours
    for as near as the place itself.
    """
    half_X = rates(D).to(width_W.device) / 2
    mean_WX = (width_W[:, None] * half_X).sin() / (width_W[:, None] * half_X.sin())
    return (KEPT + (1 - KEPT) * mean_WX).repeat(1, 2)


KEPT = 0.6  # chosen on dev clips: docs/thinned-padding.md


class SinusoidalPosition(nn.Module):
    """Add fixed sinusoids to `scale` x vectors; the table grows to the longest sequence seen.

    `first` is the row of a sequence's first vector; `start` counts the vectors that came before the given ones.
    """

    table_TD: Tensor

    def __init__(self, dim: int, *, length: int = 1500, first: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        self.first, self.scale = first, scale
        self.register_buffer("table_TD", sinusoids(first + length, dim), persistent=False)

    def forward(self, x_BTD: Tensor, start: int = 0, places: Places | None = None) -> Tensor:
        """Add to each vector the sinusoids of its place: those given, or its number after `start`."""
        T, D = x_BTD.shape[1:]
        reach = self.first + (start + T if places is None else int(places.at_BT.max()) + 1)
        if len(self.table_TD) < reach:
            self.table_TD = sinusoids(2 * reach, D).to(self.table_TD)
        if places is None:
            place_TD = self.table_TD[self.first + start : self.first + start + T]
        else:
            width_W, row_BT = places.width_BT.unique(return_inverse=True)
            place_TD = self.table_TD[self.first + places.at_BT] * damping(width_W.float(), D)[row_BT]
        return torch.add(place_TD.to(x_BTD.dtype), x_BTD, alpha=self.scale)


class LearnedPosition(nn.Module):
    """Add a trained vector per position to `scale` x vectors; `start` is the position of the first one."""

    def __init__(self, dim: int, length: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(length, dim), std=dim**-0.5))

    def forward(self, x_BLD: Tensor, start: int = 0) -> Tensor:
        return torch.add(self.weight[start : start + x_BLD.shape[1]], x_BLD, alpha=self.scale)


Position = SinusoidalPosition | LearnedPosition
