"""The whole model: front end, encoder and, depending on the configuration, a decoder and a CTC head.

Shapes: B batch, N samples, T frames, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from asr.features import FrontEnd
from asr.model.encoder import Encoder
from asr.model.masks import Memory


class CTCHead(nn.Module):
    """Per-frame log-probabilities of tokens and blank for CTC (Graves et al. 2006)."""

    def __init__(self, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.output = nn.Linear(dim, vocab_size)

    def forward(self, memory: Memory) -> Tensor:
        """Return log-probabilities (B, T, V) in float32."""
        return self.output(memory.states_BTD.to(self.output.weight.dtype)).float().log_softmax(-1)


class SpeechModel(nn.Module):
    """From waveforms to tokens.

    decoder: of the kind that the configuration names, None for CTC alone; searches and criteria are chosen to match it.
    """

    decoder: Any

    def __init__(self, front_end: FrontEnd, encoder: Encoder, decoder: nn.Module | None, ctc: CTCHead | None) -> None:
        super().__init__()
        self.front_end = front_end
        self.encoder = encoder
        self.decoder = decoder
        self.ctc = ctc

    def encode(self, audio_BN: Tensor, len_B: Tensor) -> Memory:
        """Encode waveforms (B, N) at the front end's rate, lengths in samples; states have the encoder's precision."""
        features = self.front_end(audio_BN, len_B)
        dtype = next(self.encoder.parameters()).dtype
        memory: Memory = self.encoder(features._replace(x_BTF=features.x_BTF.to(dtype)))
        return memory

    @property
    def parameters_count(self) -> int:
        """The number of trained parameters; shared ones count once."""
        return sum(p.numel() for p in self.parameters())
