"""Kinds of normalisation, each constructed from a width; asr.model.layers decides where they are applied.

LayerNorm (Ba et al. 2016, torch's own) and RMSNorm look at one vector, so vectors do not depend on each other.
BatchNorm and PowerNorm use statistics of each element over all rows of a batch in training, and running statistics in
evaluation.  They get rows (asr.model.rows), so padding enters no statistic.

Shapes: D width, N rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]  # from a width, makes a module that maps vectors (..., D) to (..., D)
EPS = 1e-5


class RMSNorm(nn.RMSNorm):
    """Divides vectors by their root mean square and multiplies by a trained scale (Zhang & Sennrich 2019).

    Uses LayerNorm's epsilon; the default of torch's module depends on the precision.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class BatchNorm(nn.Module):
    """Normalises each element over the rows of a batch (Ioffe & Szegedy 2015), then applies a scale and shift.

    The running statistics, used in evaluation, move by a tenth towards those of each batch.  A batch of a single row
    has no variance and is treated as in evaluation.
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
    """Divides each element by its running root mean square, without a mean (Shen et al. 2020), then scale and shift.

    Training divides by the statistic of earlier batches, so the gradient through it is approximated with a running
    statistic of gradients, `gradient_D` (the paper's nu).  In the first `warmup` batches the batch's own statistics
    replace both, which is exact (the paper's PN-V), and the running ones are only updated.
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


KEPT = 0.9  # share of the running statistics kept at each update, the paper's alpha


class _Power(torch.autograd.Function):
    """x / root with the gradient of Shen et al. 2020, algorithm 2; each backward pass updates `gradient_D`."""

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
    """Update a running statistic where it stays finite: a non-finite step is skipped and must leave no trace."""
    running_D.copy_(torch.where(to_D.isfinite(), to_D, running_D))
