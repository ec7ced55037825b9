"""Self-attention to nearby frames, in blocks of queries with the keys around them: the cost is linear in the length.

Shapes: B batch, T frames, H heads, K head width, N blocks, S queries of a block, W keys around it, X = B x N.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from asr.model.attention import Attend, Form

LEAST = 32  # queries of a block; with fewer the number of blocks would cost more than their work


class Blocks(NamedTuple):
    """How a sequence is split: blocks of `size` queries, with keys from `before` frames before to `after` after them.

    rest: how many frames the last block lacks.
    """

    size: int
    before: int
    after: int
    rest: int

    @classmethod
    def of(cls, T: int, size: int, before: int, after: int) -> Blocks:
        """Return the blocks of T frames; `before` and `after` are limited to the frames that exist."""
        size = min(size, T)
        rest = -T % size
        furthest = T + rest - size
        return cls(size, min(before, furthest), min(after, furthest), rest)

    def queries(self, x_BHTK: Tensor) -> Tensor:
        """Split queries into blocks: (B, H, T, K) -> (X, H, S, K)."""
        x_BHNSK = F.pad(x_BHTK, (0, 0, 0, self.rest)).unflatten(2, (-1, self.size))
        return x_BHNSK.transpose(1, 2).flatten(0, 1)

    def joined(self, x_XHSK: Tensor, B: int, T: int) -> Tensor:
        """Join blocks again, the inverse of `queries`."""
        return x_XHSK.unflatten(0, (B, -1)).transpose(1, 2).flatten(2, 3)[:, :, :T]

    def around(self, x_BHTK: Tensor) -> Tensor:
        """Return keys or values around each block: (X, H, W, K)."""
        x_BHTK = F.pad(x_BHTK, (0, 0, self.before, self.after + self.rest))
        x_BHNKW = x_BHTK.unfold(2, self.before + self.size + self.after, self.size)
        return x_BHNKW.permute(0, 2, 1, 4, 3).flatten(0, 1)

    def weights(self, weight_BT: Tensor) -> Tensor:
        """Return log-weights of the keys around each block: (X, W)."""
        weight_BT = F.pad(weight_BT, (self.before, self.after + self.rest), value=-math.inf)
        return weight_BT.unfold(1, self.before + self.size + self.after, self.size).flatten(0, 1)

    def offsets(self, device: torch.device) -> Tensor:
        """Return how many frames after each query each key is: (S, W)."""
        key_W = torch.arange(-self.before, self.size + self.after, device=device)
        return key_W - torch.arange(self.size, device=device)[:, None]


class Near(Form):
    """Attention, in the given form, from blocks of `size` queries to the keys of the block, `before` it and `after` it.

    The form sees each block as a sequence of its own: it depends on distances alone, which are the same in all blocks.
    """

    def __init__(self, form: Form, size: int, before: int, after: int) -> None:
        super().__init__()
        self.form = form
        self.size, self.before, self.after = size, before, after

    def sees(self, offset_SW: Tensor) -> Tensor:
        """Mark, by its offset in frames after the query, whether a key of the block may be attended to."""
        return torch.ones_like(offset_SW, dtype=torch.bool)

    def place(self, x_BHTK: Tensor, first: int = 0) -> Tensor:
        return self.form.place(x_BHTK, first)

    def forward(
        self, attend: Attend, q_BHLK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, weight_BHLT: Tensor | None, past: int = 0
    ) -> tuple[Tensor, Tensor | None]:
        """Attend in blocks; `weight_BHLT` are the log-weights of the keys, (B, 1, 1, T)."""
        assert weight_BHLT is not None
        B, _, T, _ = k_BHTK.shape
        blocks = Blocks.of(T, self.size, self.before, self.after)
        offset_SW = blocks.offsets(q_BHLK.device)
        weight_XSW = blocks.weights(weight_BHLT[:, 0, 0])[:, None].masked_fill(~self.sees(offset_SW), -math.inf)
        weight_X1SW = weight_XSW.masked_fill(offset_SW == 0, 0.0)[:, None]  # padding must attend to something
        keys_values = blocks.around(k_BHTK), blocks.around(v_BHTK)
        y_XHSK, _ = self.form(attend, blocks.queries(q_BHLK), *keys_values, weight_X1SW, blocks.before)
        return blocks.joined(y_XHSK, B, T), None


class Chunks(Near):
    """A frame attends to its whole chunk of `frames` frames and to the `left` chunks before it (Zhang et al. 2020)."""

    def __init__(self, form: Form, frames: int, left: int) -> None:
        super().__init__(form, frames, left * frames, 0)


class Window(Near):
    """A frame attends to `left` frames before it and `right` after it (Povey et al. 2018; Beltagy et al. 2020)."""

    def __init__(self, form: Form, left: int, right: int) -> None:
        super().__init__(form, max(LEAST, (left + right) // 2), left, right)

    def sees(self, offset_SW: Tensor) -> Tensor:
        return (offset_SW >= -self.before) & (offset_SW <= self.after)
