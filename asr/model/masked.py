"""A decoder that sees some tokens and predicts the others, all at once, and its length head.

Shapes: B utterances, N sequences, L tokens, T frames, D width, H heads, K head width, V vocabulary, X lengths.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.lengths import within
from asr.model.attention import KeyValue
from asr.model.decoder import DecoderLayer
from asr.model.layers import Dropout
from asr.model.masks import Memory, log_weight
from asr.model.position import Position
from asr.model.rows import Rows


class ProjectedMemory(NamedTuple):
    """Each layer's keys and values (N, H, T, K) of the encoder states, and their log-weights."""

    memory: tuple[KeyValue, ...]
    weight_N11T: Tensor

    def repeated(self, count: int) -> ProjectedMemory:
        """Repeat each utterance for `count` texts, which are adjacent."""
        pairs = tuple((k.repeat_interleave(count, 0), v.repeat_interleave(count, 0)) for k, v in self.memory)
        return ProjectedMemory(pairs, self.weight_N11T.repeat_interleave(count, 0))


class LengthHead(nn.Module):
    """Predicts the length of a text: each frame gives a rate, and their sum is the mean of a normal distribution.

    Ghazvininejad et al. 2019 use one class per length instead.  Here similar lengths get similar probabilities, lengths
    missing from training are no worse off, and padding does not count.  The variance grows with the mean.
    """

    def __init__(self, dim: int, longest: int) -> None:
        super().__init__()
        self.longest = longest
        self.rate = nn.Linear(dim, 1)
        self.variance = nn.Parameter(torch.zeros(2))
        nn.init.constant_(self.rate.bias, -1.0)  # some eight tokens a second, if a frame is 40 ms

    def forward(self, memory: Memory) -> Tensor:
        """Return log-probabilities (B, X) of the lengths 0, 1 and so on."""
        weight, bias = self.rate.weight.float(), self.rate.bias.float()
        rate_BT = F.softplus(F.linear(memory.states_BTD.float(), weight, bias).squeeze(-1))
        mean_B1 = rate_BT.masked_fill(~within(memory.len_B, rate_BT.shape[1]), 0.0).sum(1, keepdim=True)
        fixed, growing = F.softplus(self.variance.float())
        length_X = torch.arange(self.longest + 1, device=mean_B1.device)
        return (-0.5 * (length_X - mean_B1).square() / (0.1 + fixed + growing * mean_B1)).log_softmax(-1)


class MaskedDecoder(nn.Module):
    """The layers of the autoregressive decoder without causality: every token attends to all others.

    The caller chooses the token that masks those to be predicted: CTC's blank, which occurs in no text.  Start tokens
    come before the text and are never predicted.  length: None if another part predicts the length.
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        position: Position,
        layers: Iterable[DecoderLayer],
        norm: nn.Module,
        output: nn.Module,
        dropout: float,
        length: LengthHead | None,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.position = position
        self.dropout = Dropout(dropout)
        self.layers: Iterable[DecoderLayer] = nn.ModuleList(layers)  # type: ignore[assignment]
        self.norm = norm
        self.output = output
        self.length = length

    def forward(self, tokens_NL: Tensor, len_N: Tensor, projected: ProjectedMemory) -> Tensor:
        """Return logits (N, L, V) of the token at each position."""
        rows = Rows(len_N, tokens_NL.shape[1])
        x_ND = self.dropout(rows.pack(self.position(self.embedding(tokens_NL))))
        seen_N11L = log_weight(within(len_N, tokens_NL.shape[1]))[:, None, None]
        for layer, memory in zip(self.layers, projected.memory, strict=True):
            x_ND, _ = layer(x_ND, rows, seen_N11L, memory, projected.weight_N11T, None)
        return self.output(rows.spread(self.norm(x_ND)))

    def project_memory(self, memory: Memory) -> ProjectedMemory:
        """Project the encoder states once for all calls."""
        pairs = tuple(layer.cross_attention.project_memory(memory.states_BTD) for layer in self.layers)
        return ProjectedMemory(pairs, memory.log_weight_BT[:, None, None])

    def fill(self, tokens_NL: Tensor, len_N: Tensor, projected: ProjectedMemory) -> Tensor:
        """Return log-probabilities (N, L, V) in float32, as the search needs them."""
        return self(tokens_NL, len_N, projected).float().log_softmax(-1)
