"""The feed-forward layer, dropout, and the residual connections around sublayers.

Shapes: B batch, T frames or tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.model.norms import Norm


class Dropout(nn.Module):
    """Zero a share `p` of the elements in training and scale up the rest (Srivastava et al. 2014).

    The CPU has its own implementation, because torch draws one number per element in a single thread there, which took
    a fifth of a training step.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    @property
    def share(self) -> float:
        """The share of elements that is zeroed now: none in evaluation."""
        return self.p if self.training else 0.0

    def forward(self, x: Tensor) -> Tensor:
        if self.share == 0.0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        return x * _random_mask(x, self.p)


def _random_mask(x: Tensor, p: float) -> Tensor:
    """Return a mask of x's shape and precision: zeros, and the factor that scales up the rest.

    16 random bits choose the mask of 16 bytes from a table, where each mask has as many of the 65,536 places as it is
    probable.  They are picked in rows, which torch shares among its threads.
    """
    table = _masks(p, x.dtype)
    rows = -(-x.numel() * x.element_size() // (16 * _ROW))
    draws = torch.randint(-(2**63), 2**63 - 1, (rows, _ROW // 4)).view(torch.uint16)
    masks = table.expand(rows, -1).gather(1, draws.long())
    return masks.view(x.dtype).flatten()[: x.numel()].view(x.shape)


_ROW = 256


@lru_cache
def _masks(p: float, dtype: torch.dtype) -> Tensor:
    """Return the table of masks, (65536,); torch picks 16 bytes fastest as one element, so it is of complex numbers."""
    patterns = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * (128 // torch.finfo(dtype).bits))
    probability = torch.where(patterns > 0, 1 - p, p).prod(1)
    ends = (probability.cumsum(0) * 2**16).round().long()
    masks = (patterns / (1 - p)).to(dtype).repeat_interleave(ends.diff(prepend=ends.new_zeros(1)), 0)
    return masks.view(torch.complex128).flatten()


class FeedForward(nn.Sequential):
    """Two linear maps with a non-linearity in between, applied to each position separately."""

    def __init__(self, dim: int, inner: int, activation: nn.Module, dropout: float) -> None:
        super().__init__(nn.Linear(dim, inner), activation, Dropout(dropout), nn.Linear(inner, dim))


class Placement(nn.Module):
    """How a sublayer f is placed in its stack: what it reads, and what becomes of its output."""

    def __init__(self, norm: Norm, dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = norm(dim)
        self.dropout = Dropout(dropout)

    def enter(self, x_BTD: Tensor) -> Tensor:
        """Return the input of the sublayer f."""
        return x_BTD

    def leave(self, x_BTD: Tensor, y_BTD: Tensor) -> Tensor:
        """Return the layer's output, given its input x and the sublayer's output y."""
        raise NotImplementedError

    @staticmethod
    def last(norm: Norm, dim: int) -> nn.Module:
        """Return what follows the last layer of a stack."""
        return nn.Identity()


class PreNorm(Placement):
    """x + f(norm(x)) (Xiong et al. 2020): the residual path is not normalised, so the stack needs a norm at its end."""

    def enter(self, x_BTD: Tensor) -> Tensor:
        return self.norm(x_BTD)

    def leave(self, x_BTD: Tensor, y_BTD: Tensor) -> Tensor:
        return x_BTD + self.dropout(y_BTD)

    @staticmethod
    def last(norm: Norm, dim: int) -> nn.Module:
        return norm(dim)


class PostNorm(Placement):
    """norm(x + f(x)), the form of Vaswani et al. 2017."""

    def leave(self, x_BTD: Tensor, y_BTD: Tensor) -> Tensor:
        return self.norm(x_BTD + self.dropout(y_BTD))


class Stacked(Placement):
    """f(x), with neither residual nor norm, as Graves et al. 2013 stack recurrent layers."""

    def __init__(self, norm: Norm, dim: int, dropout: float) -> None:
        super().__init__(nn.Identity, dim, dropout)

    def leave(self, x_BTD: Tensor, y_BTD: Tensor) -> Tensor:
        return self.dropout(y_BTD)


Residual = Callable[[int, float], Placement]  # made from a width and a dropout rate
