"""Heads on the encoder.  Shapes: B batch, T frames, D width, V vocabulary."""

from __future__ import annotations

from torch import Tensor, nn

from asr.model.masks import Memory


class CTCHead(nn.Module):
    """Per-frame log-probabilities of tokens and blank for CTC (Graves et al. 2006)."""

    def __init__(self, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.output = nn.Linear(dim, vocab_size)

    def forward(self, memory: Memory) -> Tensor:
        """Return log-probabilities (B, T, V) in float32."""
        return self.output(memory.states_BTD.to(self.output.weight.dtype)).float().log_softmax(-1)
