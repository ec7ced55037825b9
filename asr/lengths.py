"""Which places of a padded batch hold something.  Shapes: B sequences, T places: frames, samples, tokens or texts."""

from __future__ import annotations

import torch
from torch import Tensor


def within(len_B: Tensor, T: int) -> Tensor:
    """Return a mask (B, T) that is True for the first `len_B` places of each sequence."""
    return torch.arange(T, device=len_B.device) < len_B[:, None]
