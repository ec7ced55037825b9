"""Feed-forward layer, and what stands around a sublayer.  Shapes: B batch, T frames or tokens, D width."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.model.norms import Norm


class Dropout(nn.Module):
    """Zero a share `p` of the elements in training and scale the rest (Srivastava et al. 2014).

    By hand for the CPU, where torch draws a number per element in one thread, a fifth of a training step here: one
    64-bit draw gives the masks of eight elements, so p is rounded to a multiple of 1/256 there.
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
        draws = torch.randint(-(2**63), 2**63 - 1, (-(-x.numel() // 8),))
        zeroed = min(255, max(1, round(self.p * 256)))
        kept = draws.view(torch.uint8)[: x.numel()].view(x.shape) >= zeroed
        return x * kept.to(x.dtype).mul_(256 / (256 - zeroed))


class FeedForward(nn.Sequential):
    """Two linear maps with a non-linearity between them, at each position alone."""

    def __init__(self, dim: int, inner: int, activation: nn.Module, dropout: float) -> None:
        super().__init__(nn.Linear(dim, inner), activation, Dropout(dropout), nn.Linear(inner, dim))


class PreNorm(nn.Module):
    """x + f(norm(x)): the residual path stays clean (Xiong et al. 2020), so a last norm is needed after the stack."""

    def __init__(self, norm: Norm, dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = norm(dim)
        self.dropout = Dropout(dropout)

    def enter(self, x_BTD: Tensor) -> Tensor:
        """What the sublayer f gets."""
        return self.norm(x_BTD)

    def leave(self, x_BTD: Tensor, y_BTD: Tensor) -> Tensor:
        """The sum of the layer's input x and the sublayer's output y."""
        return x_BTD + self.dropout(y_BTD)

    @staticmethod
    def last(norm: Norm, dim: int) -> nn.Module:
        """The norm after the last layer of a stack."""
        return norm(dim)


class PostNorm(nn.Module):
    """norm(x + f(x)): the form of Vaswani et al. 2017."""

    def __init__(self, norm: Norm, dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = norm(dim)
        self.dropout = Dropout(dropout)

    def enter(self, x_BTD: Tensor) -> Tensor:
        """What the sublayer f gets."""
        return x_BTD

    def leave(self, x_BTD: Tensor, y_BTD: Tensor) -> Tensor:
        """The norm of the sum of the layer's input x and the sublayer's output y."""
        return self.norm(x_BTD + self.dropout(y_BTD))

    @staticmethod
    def last(norm: Norm, dim: int) -> nn.Module:
        """Every layer ends in a norm already."""
        return nn.Identity()


class Stacked(nn.Module):
    """f(x): neither residual nor norm, as recurrent layers are stacked by Graves et al. 2013."""

    def __init__(self, norm: Norm, dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)

    def enter(self, x_BTD: Tensor) -> Tensor:
        """What the sublayer f gets."""
        return x_BTD

    def leave(self, x_BTD: Tensor, y_BTD: Tensor) -> Tensor:
        """The sublayer's output y alone."""
        return self.dropout(y_BTD)

    @staticmethod
    def last(norm: Norm, dim: int) -> nn.Module:
        """There is no norm at all."""
        return nn.Identity()


Residual = Callable[[int, float], PreNorm | PostNorm | Stacked]  # from a width and the share that dropout zeroes
