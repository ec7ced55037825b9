"""Kinds of normalisation, each made from a width; where they stand is the part of asr.model.layers.

LayerNorm (Ba et al. 2016, torch's own) and RMSNorm look at one vector, so that no vector depends on another.  BatchNorm
and PowerNorm look at each element over all rows of a batch in training and at running statistics in evaluation.  Layers
hand them rows (asr.model.rows), so padding is in no statistic.

Shapes: D width, N rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]  # from a width: a module that takes vectors (..., D) to such vectors
EPS = 1e-5


class RMSNorm(nn.RMSNorm):
    """Vectors over their root mean square, times a trained scale (Zhang & Sennrich 2019).

    torch's, with LayerNorm's epsilon: its own depends on the precision.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class BatchNorm(nn.Module):
    """Each element with mean 0 and variance 1 over the rows of a batch (Ioffe & Szegedy 2015), then scale and shift.

    Running statistics, which evaluation takes, move by a tenth towards those of each batch.  A batch of a single row
    has no variance: it is treated as in evaluation.
    """

    mean_D: Tensor
    variance_D: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("mean_D", torch.zeros(dim))
        self.register_buffer("variance_D", torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        x_ND = x.flatten(0, -2)
        training = self.training and len(x_ND) > 1
        mean_D, variance_D = (s.clone() if training else s for s in (self.mean_D, self.variance_D))
        y_ND = F.batch_norm(x_ND, mean_D, variance_D, self.weight, self.bias, training, 0.1, EPS)
        if training:
            _move(self.mean_D, mean_D)
            _move(self.variance_D, variance_D)
        return y_ND.view(x.shape)


class PowerNorm(nn.Module):
    """Each element over its running root mean square, without a mean (Shen et al. 2020), then scale and shift.

    Training divides by the statistic of the batches before this one, so the gradient through it is approximated with a
    running statistic of gradients, `gradient_D` (the paper's nu).  In the first `warmup` batches the statistics of the
    batch itself take the place of both, which is exact (the paper's PN-V), and the running ones only follow.
    """

    square_D: Tensor
    gradient_D: Tensor
    batches: Tensor

    def __init__(self, dim: int, warmup: int = 1000) -> None:
        super().__init__()
        self.warmup = warmup
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("square_D", torch.ones(dim))
        self.register_buffer("gradient_D", torch.zeros(dim))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return torch.addcmul(self.bias, x, self.weight * (self.square_D + EPS).rsqrt()).to(x.dtype)
        x_ND = x.flatten(0, -2).float()
        square_D, warm = x_ND.detach().square().mean(0), self.batches < self.warmup
        root_D = (torch.where(warm, square_D, self.square_D) + EPS).sqrt()
        y_ND = torch.addcmul(self.bias, _Power.apply(x_ND, root_D, self.gradient_D, warm), self.weight)
        _move(self.square_D, self.square_D.lerp(square_D, 1 - KEPT))
        self.batches += 1
        return y_ND.to(x.dtype).view(x.shape)


KEPT = 0.9  # of running statistics, the paper's alpha


class _Power(torch.autograd.Function):
    """x / root with the gradient of Shen et al. 2020, algorithm 2; `gradient_D` moves with each call of it."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, root_D: Tensor, gradient_D: Tensor, warm: Tensor) -> Tensor:
        y_ND = x_ND / root_D
        ctx.gradient_D = gradient_D
        ctx.save_for_backward(y_ND, root_D, warm)
        return y_ND

    @staticmethod
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, None, None, None]:
        y_ND, root_D, warm = ctx.saved_tensors
        along_D, before_D = (grad_ND * y_ND).mean(0), ctx.gradient_D
        used_D = torch.where(warm, along_D, before_D)
        kept_D = 1 - (1 - KEPT) * y_ND.square().mean(0)
        result_ND = (grad_ND - used_D * y_ND) / root_D
        _move(ctx.gradient_D, kept_D * before_D + (1 - KEPT) * along_D)
        return result_ND, None, None, None


def _move(running_D: Tensor, to_D: Tensor) -> None:
    """Set a running statistic, where it stays finite: a step that is not is skipped, and must leave nothing behind."""
    running_D.copy_(torch.where(to_D.isfinite(), to_D, running_D))
