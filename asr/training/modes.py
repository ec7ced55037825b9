"""Running a part of a model in evaluation mode in the middle of a training step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Disable gradient and dropout inside; afterwards every submodule is back in its own mode.

    The autocast cache is disabled: weights cast without gradient would be reused in the trained pass.
    """
    kind = next(module.parameters()).device.type
    dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
    with without_dropout(module), torch.no_grad(), torch.autocast(kind, dtype, enabled, cache_enabled=False):
        yield


@contextmanager
def without_dropout(module: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode inside, with gradient; afterwards every submodule is back in its own mode."""
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True
