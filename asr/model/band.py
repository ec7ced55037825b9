"""Self-attention to frames nearby: queries go in blocks, each with the keys around it, so cost grows with length.

Shapes: B batch, T frames, H heads, K head width, N blocks, S queries of a block, W keys around it, X = B x N.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from asr.model.attention import Attend, Form

LEAST = 32  # queries of a block: fewer would spend the time on their number


class Blocks(NamedTuple):
    """How a sequence is cut: `size` queries a block, keys from `before` ahead of it to `after` behind it.

    rest: what the last block lacks.
    """

    size: int
    before: int
    after: int
    rest: int

    @classmethod
    def of(cls, T: int, size: int, before: int, after: int) -> Blocks:
        """Those of T frames; keys are asked for no further than there are any."""
        size = min(size, T)
        rest = -T % size
        furthest = T + rest - size
        return cls(size, min(before, furthest), min(after, furthest), rest)

    def queries(self, x_BHTK: Tensor) -> Tensor:
        """(B, H, T, K) -> (X, H, S, K)."""
        x_BHNSK = F.pad(x_BHTK, (0, 0, 0, self.rest)).unflatten(2, (-1, self.size))
        return x_BHNSK.transpose(1, 2).flatten(0, 1)

    def joined(self, x_XHSK: Tensor, B: int, T: int) -> Tensor:
        """The way back."""
        return x_XHSK.unflatten(0, (B, -1)).transpose(1, 2).flatten(2, 3)[:, :, :T]

    def around(self, x_BHTK: Tensor) -> Tensor:
        """Keys or values around each block: (X, H, W, K)."""
        x_BHTK = F.pad(x_BHTK, (0, 0, self.before, self.after + self.rest))
        x_BHNKW = x_BHTK.unfold(2, self.before + self.size + self.after, self.size)
        return x_BHNKW.permute(0, 2, 1, 4, 3).flatten(0, 1)

    def weights(self, weight_BT: Tensor) -> Tensor:
        """Log-weights of the keys around each block: (X, W)."""
        weight_BT = F.pad(weight_BT, (self.before, self.after + self.rest), value=-math.inf)
        return weight_BT.unfold(1, self.before + self.size + self.after, self.size).flatten(0, 1)

    def offsets(self, device: torch.device) -> Tensor:
        """How many frames after a query each key stands: (S, W)."""
        key_W = torch.arange(-self.before, self.size + self.after, device=device)
        return key_W - torch.arange(self.size, device=device)[:, None]


class Near(Form):
    """Blocks of `size` queries meet, in the given form, the keys of their block, `before` ahead and `after` behind it.

    To that form each block is a sequence of its own: it minds distances alone, and these are the same in all blocks.
    """

    def __init__(self, form: Form, size: int, before: int, after: int) -> None:
        super().__init__()
        self.form = form
        self.size, self.before, self.after = size, before, after

    def sees(self, offset_SW: Tensor) -> Tensor:
        """Whether a query attends to a key of its block that stands so many frames after it."""
        return torch.ones_like(offset_SW, dtype=torch.bool)

    def place(self, x_BHTK: Tensor, first: int = 0) -> Tensor:
        return self.form.place(x_BHTK, first)

    def forward(
        self,
        attend: Attend,
        q_BHLK: Tensor,
        k_BHTK: Tensor,
        v_BHTK: Tensor,
        weight_BHLT: Tensor | None,
        past: int = 0,
    ) -> tuple[Tensor, Tensor | None]:
        """`weight_BHLT` is that of keys alone, (B, 1, 1, T)."""
        assert weight_BHLT is not None
        B, _, T, _ = k_BHTK.shape
        blocks = Blocks.of(T, self.size, self.before, self.after)
        offset_SW = blocks.offsets(q_BHLK.device)
        weight_XSW = blocks.weights(weight_BHLT[:, 0, 0])[:, None].masked_fill(~self.sees(offset_SW), -math.inf)
        weight_X1SW = weight_XSW.masked_fill(offset_SW == 0, 0.0)[:, None]  # padding must see something: itself
        keys_values = blocks.around(k_BHTK), blocks.around(v_BHTK)
        y_XHSK, _ = self.form(attend, blocks.queries(q_BHLK), *keys_values, weight_X1SW, blocks.before)
        return blocks.joined(y_XHSK, B, T), None


class Chunks(Near):
    """A frame attends to all of its chunk of `frames` and of the `left` chunks before it (Zhang et al. 2020)."""

    def __init__(self, form: Form, frames: int, left: int) -> None:
        super().__init__(form, frames, left * frames, 0)


class Window(Near):
    """A frame attends to `left` frames before it and `right` after it (Povey et al. 2018; Beltagy et al. 2020)."""

    def __init__(self, form: Form, left: int, right: int) -> None:
        super().__init__(form, max(LEAST, (left + right) // 2), left, right)

    def sees(self, offset_SW: Tensor) -> Tensor:
        return (offset_SW >= -self.before) & (offset_SW <= self.after)
