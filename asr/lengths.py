"""Padded batches, and which of their places hold something.

Shapes: B sequences, T places (frames, samples, tokens or texts), L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def within(len_B: Tensor, T: int) -> Tensor:
    """Return a mask (B, T) that is True for the first `len_B` places of each sequence."""
    return torch.arange(T, device=len_B.device) < len_B[:, None]


def pad_tokens(texts: Sequence[Sequence[int]], value: int = 0) -> tuple[Tensor, Tensor]:
    """Pad with `value` and stack token sequences of any lengths; return (B, L) and lengths (B,)."""
    rows = [torch.tensor(text, dtype=torch.long) for text in texts]
    return pad_sequence(rows, batch_first=True, padding_value=value), torch.tensor([len(row) for row in rows])
