"""The layer of the Conformer (Gulati et al. 2020): attention and convolution between two half-step feed-forwards.

Shapes: B batch, T frames, D width, N rows (see asr.model.rows).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from asr.model.attention import SelfAttention
from asr.model.layers import FeedForward, Residual
from asr.model.norms import Norm
from asr.model.rows import Rows


class ConvolutionModule(nn.Module):
    """A gated linear unit, a depthwise convolution over time, a norm, SiLU and a linear map.

    The norm is of the encoder's kind; the paper's is a batch norm.
    """

    def __init__(self, dim: int, kernel: int, norm: Norm) -> None:
        super().__init__()
        self.gated = nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm = norm(dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x_ND: Tensor, rows: Rows) -> Tensor:
        """Map (N, D) to (N, D); the convolution sees zeros outside the utterance."""
        x_BDT = rows.spread_zeros(F.glu(self.gated(x_ND), dim=-1)).transpose(1, 2)
        x_ND = rows.pack(self.depthwise(x_BDT).transpose(1, 2))
        return self.out(F.silu(self.norm(x_ND)))


class ConformerLayer(nn.Module):
    """Half a feed-forward, self-attention, convolution, half a feed-forward, each with its residual; then a norm."""

    def __init__(
        self,
        dim: int,
        attention: SelfAttention,
        convolution: ConvolutionModule,
        feed_forwards: tuple[FeedForward, FeedForward],
        residual: Residual,
        norm: nn.Module,
        p: float,
    ) -> None:
        super().__init__()
        self.first, self.first_residual = feed_forwards[0], residual(dim, p)
        self.attention, self.attention_residual = attention, residual(dim, p)
        self.convolution, self.convolution_residual = convolution, residual(dim, p)
        self.second, self.second_residual = feed_forwards[1], residual(dim, p)
        self.norm = norm

    def forward(self, x_ND: Tensor, rows: Rows, weight_B11T: Tensor, beyond_BCD: None = None) -> Tensor:
        """Run the layer (see asr.model.encoder.Layer); it attends to nothing beyond its own frames."""
        x_ND = self.first_residual.leave(x_ND, self.first(self.first_residual.enter(x_ND)) / 2)
        y_ND = self.attention(self.attention_residual.enter(x_ND), rows, weight_B11T)
        x_ND = self.attention_residual.leave(x_ND, y_ND)
        y_ND = self.convolution(self.convolution_residual.enter(x_ND), rows)
        x_ND = self.convolution_residual.leave(x_ND, y_ND)
        x_ND = self.second_residual.leave(x_ND, self.second(self.second_residual.enter(x_ND)) / 2)
        return self.norm(x_ND)
