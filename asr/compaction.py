"""Batches that shrink during decoding: the last utterances move into the gaps left by finished ones.

Shapes: B utterances, M of them that go on, K hypotheses of each, N = M x K.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def closed_up(keep_B: Sequence[bool]) -> list[int]:
    """Return the places of utterances that go on; the last ones fill the gaps, so that most stay where they are."""
    count = sum(keep_B)
    last = (b for b in reversed(range(len(keep_B))) if keep_B[b])
    return [b if keep_B[b] else next(last) for b in range(count)]


def hypotheses(places: Sequence[int], K: int, device: torch.device) -> Tensor:
    """Return the rows (N,) of the hypotheses of the utterances at `places`."""
    return (torch.tensor(places)[:, None] * K + torch.arange(K)).flatten().to(device)


def compacted(x_B: Tensor, row_M: Tensor) -> Tensor:
    """Return the rows `row_M` in the memory of x_B, which becomes invalid; rows that stay in place are not copied.

    row_M: some of the rows, as `closed_up` places them, or all of them in order.
    """
    if len(row_M) == len(x_B):
        return x_B
    moved = (row_M != torch.arange(len(row_M), device=row_M.device)).nonzero()[:, 0]
    x_B[moved] = x_B[row_M[moved]]
    return x_B[: len(row_M)]
