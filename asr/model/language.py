"""A Transformer decoder without an encoder: a language model, which is also a scorer for the search.

Shapes: B batch, N hypotheses or rows (see asr.model.rows), L tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from asr.model.attention import KeyValue
from asr.model.cache import Cache
from asr.model.encoder import EncoderLayer
from asr.model.layers import Dropout
from asr.model.masks import causal
from asr.model.position import SinusoidalPosition
from asr.model.rows import Rows


class CausalLayer(EncoderLayer):
    """An encoder's layer whose self-attention sees the past alone, and which can go on token by token."""

    def step(self, x_NLD: Tensor, past: KeyValue, length: int) -> Tensor:
        """Feed L more tokens to each hypothesis; their keys and values are written into `past`."""
        y_NLD = self.attention.step(self.attention_residual.enter(x_NLD), past, length)
        x_NLD = self.attention_residual.leave(x_NLD, y_NLD)
        return self.feed_forward_residual.leave(x_NLD, self.feed_forward(self.feed_forward_residual.enter(x_NLD)))


class LanguageModel(nn.Module):
    """Token embedding, positions, layers, and an output projection that is tied to the embedding.

    begin_id: the token that is fed first, whatever start tokens the speech model has.
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        position: SinusoidalPosition,
        layers: Iterable[CausalLayer],
        norm: nn.Module,
        dropout: float,
        begin_id: int,
    ) -> None:
        super().__init__()
        self.embedding, self.position, self.dropout = embedding, position, Dropout(dropout)
        self.layers: Iterable[CausalLayer] = nn.ModuleList(layers)  # type: ignore[assignment]
        self.norm, self.begin_id = norm, begin_id

    def forward(self, tokens_BL: Tensor, len_B: Tensor) -> Tensor:
        """Return the logits (B, L, V) of the token after each position; what follows a text's end changes nothing."""
        rows = Rows(len_B, tokens_BL.shape[1])
        x_ND = self.dropout(rows.pack(self.position(self.embedding(tokens_BL))))
        causal_LL = causal(tokens_BL.shape[1], tokens_BL.device)
        for layer in self.layers:
            x_ND = layer(x_ND, rows, causal_LL)
        return self._logits(rows.spread(self.norm(x_ND)))

    def _logits(self, x: Tensor) -> Tensor:
        return x @ self.embedding.weight.T

    def start(self, memory: Any) -> Cache | None:
        """Return None, since the number of hypotheses is known only at the first step."""
        return None

    def step(self, tokens_NL: Tensor, state: Cache | None) -> tuple[Tensor, Cache]:
        """Return log-probabilities (N, V) of the next token and the new state.

        The tokens of the first step are the speech model's start tokens; `begin_id` is read in their place.
        """
        if state is None:
            self.to(tokens_NL.device)
            tokens_NL = torch.full_like(tokens_NL[:, :1], self.begin_id)
            state = self._nothing(len(tokens_NL))
        past = state.with_room(tokens_NL.shape[1])
        x_NLD = self.position(self.embedding(tokens_NL), start=past.length)
        for layer, own in zip(self.layers, past.layers, strict=True):
            x_NLD = layer.step(x_NLD, own, past.length)
        return self._logits(self.norm(x_NLD[:, -1])).float().log_softmax(-1), past.filled(tokens_NL.shape[1])

    def reorder(self, state: Cache | None, index_N: Tensor) -> Cache | None:
        return None if state is None else state.reorder(index_N)

    def _nothing(self, N: int) -> Cache:
        heads = [layer.attention.heads for layer in self.layers]
        width = self.embedding.embedding_dim
        return Cache.empty(len(heads), self.embedding.weight.new_empty(N, heads[0], width // heads[0]))
