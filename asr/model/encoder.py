"""The encoder: convolutional subsampling, positions and a stack of layers.

Shapes: B batch, T frames, D width, N rows (see asr.model.rows).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from asr.features import Features
from asr.model.attention import SelfAttention
from asr.model.layers import Dropout, FeedForward, Residual
from asr.model.masks import Memory
from asr.model.padding import AnyPadding
from asr.model.position import Position
from asr.model.rows import Rows
from asr.model.subsampling import Subsampling


class Layer(Protocol):
    """A layer of the encoder, which maps rows (N, D) to rows (N, D).

    weight_B11T: log-weights of the keys.  beyond_BCD: cells to attend to in addition to the frames, as they enter the
    attention; their log-weights come last.
    """

    def __call__(self, x_ND: Tensor, rows: Rows, weight_B11T: Tensor, beyond_BCD: Tensor | None = None) -> Tensor: ...


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with its residual."""

    def __init__(self, dim: int, attention: SelfAttention, feed_forward: FeedForward, residual: Residual, p: float):
        super().__init__()
        self.attention, self.attention_residual = attention, residual(dim, p)
        self.feed_forward, self.feed_forward_residual = feed_forward, residual(dim, p)

    def forward(self, x_ND: Tensor, rows: Rows, weight_B11T: Tensor, beyond_BCD: Tensor | None = None) -> Tensor:
        """Run the layer (see Layer)."""
        y_ND = self.attention(self.attention_residual.enter(x_ND), rows, weight_B11T, beyond_BCD)
        x_ND = self.attention_residual.leave(x_ND, y_ND)
        y_ND = self.feed_forward(self.feed_forward_residual.enter(x_ND))
        return self.feed_forward_residual.leave(x_ND, y_ND)


class Encoder(nn.Module):
    """Maps Features to Memory; `padding` decides how padding is treated."""

    def __init__(
        self,
        subsampling: Subsampling,
        position: Position,
        padding: AnyPadding,
        layers: Iterable[Layer],
        norm: nn.Module,
        dropout: float,
    ) -> None:
        super().__init__()
        self.subsampling = subsampling
        self.position = position
        self.padding = padding
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(layers)  # type: ignore[arg-type]
        self.norm = norm

    def forward(self, features: Features) -> Memory:
        x_BTD, computed_B, weight_BT, len_B, silence_BXCD = self.padding(self.subsampling, features)
        rows = Rows(computed_B, x_BTD.shape[1])
        x_ND = self.dropout(rows.pack(self.position(x_BTD)))
        for i, layer in enumerate(self.layers):
            beyond_BCD = None if silence_BXCD is None else silence_BXCD[:, i]
            x_ND = layer(x_ND, rows, weight_BT[:, None, None], beyond_BCD)
        x_BTD = rows.spread(self.norm(x_ND))
        if silence_BXCD is not None:
            x_BTD = torch.cat([x_BTD, silence_BXCD[:, -1].to(x_BTD.dtype)], dim=1)
        return Memory(x_BTD, weight_BT, len_B)

    def lengths(self, len_B: Tensor) -> Tensor:
        """Return the number of output frames for `len_B` feature frames."""
        return self.subsampling.lengths(len_B)


def recompute_layers(encoder: Encoder) -> None:
    """Make each layer keep only its inputs and recompute the rest for the gradient (Chen et al. 2016)."""
    for layer in encoder.layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)  # type: ignore[method-assign]
