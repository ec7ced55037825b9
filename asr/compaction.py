"""Batches that shrink while they are decoded: the last utterances fill the gaps of those that are done.

Shapes: B utterances, M of them that go on, K hypotheses of each, N = M x K.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def closed_up(keep_B: Sequence[bool]) -> list[int]:
    """Places of those that go on: the last ones fill the gaps, so that most stay where they are."""
    count = sum(keep_B)
    last = (b for b in reversed(range(len(keep_B))) if keep_B[b])
    return [b if keep_B[b] else next(last) for b in range(count)]


def hypotheses(places: Sequence[int], K: int, device: torch.device) -> Tensor:
    """Rows (N,) of the hypotheses of these utterances."""
    return (torch.tensor(places)[:, None] * K + torch.arange(K)).flatten().to(device)


def compacted(x_B: Tensor, row_M: Tensor) -> Tensor:
    """The rows `row_M`, within the memory of x_B, which is spoilt: what stays in its place is not touched.

    row_M: some of the rows, or all of them in order.
    """
    if len(row_M) == len(x_B):
        return x_B
    moved = (row_M != torch.arange(len(row_M), device=row_M.device)).nonzero()[:, 0]
    x_B[moved] = x_B[row_M[moved]]
    return x_B[: len(row_M)]
