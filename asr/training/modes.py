"""A part of a model at work as in evaluation, in the middle of a training step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """No gradient and no dropout inside; afterwards every submodule is in the mode that it was in.

    Weights that autocast casts meanwhile are not kept: without gradient, they would stand in for the trained ones.
    """
    kind = next(module.parameters()).device.type
    dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
    with without_dropout(module), torch.no_grad(), torch.autocast(kind, dtype, enabled, cache_enabled=False):
        yield


@contextmanager
def without_dropout(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, with gradient; afterwards every submodule is in the mode that it was in."""
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True
