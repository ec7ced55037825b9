"""A Transformer decoder without an encoder: a language model, which is also a scorer for the search.

Shapes: B batch, N hypotheses or rows (see asr.model.rows), M hypotheses that grow, L tokens, D width,
V vocabulary, C, H and K as in asr.model.cache.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from asr.model.attention import KeyValue
from asr.model.cache import Texts
from asr.model.encoder import EncoderLayer
from asr.model.layers import Dropout
from asr.model.masks import causal
from asr.model.position import SinusoidalPosition
from asr.model.rows import Rows


class CausalLayer(EncoderLayer):
    """An encoder's layer whose self-attention sees the past alone, and which can go on token by token."""

    def step(self, x_NLD: Tensor, past: KeyValue, length: int, weight_N11C: Tensor | None) -> Tensor:
        """Feed L more tokens to each hypothesis (see SelfAttention.step)."""
        y_NLD = self.attention.step(self.attention_residual.enter(x_NLD), past, length, weight_N11C)
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

    def start(self, memory: Any) -> Texts | None:
        """Return None, since the number of hypotheses is known only at the first step."""
        return None

    def step(self, tokens_NL: Tensor, state: Texts | None) -> tuple[Tensor, Texts]:
        """Return log-probabilities (N, V) of the next token and the new state; -1 stands for no token.

        The tokens of the first step are the speech model's start tokens; `begin_id` is read in their place.
        """
        if state is None:
            self.to(tokens_NL.device)
            tokens_NL = torch.full_like(tokens_NL[:, :1], self.begin_id)
            state = self._nothing(len(tokens_NL))
        for tokens_N in tokens_NL.unbind(1):
            grown_M = (tokens_N >= 0).nonzero()[:, 0]
            if len(grown_M):
                state = self._read(tokens_N[grown_M], grown_M, state)
        return state.log_prob_NV, state

    def reorder(self, state: Texts | None, index_N: Tensor) -> Texts | None:
        return None if state is None else state.reorder(index_N)

    def _read(self, token_M: Tensor, grown_M: Tensor, state: Texts) -> Texts:
        """Append a token to the texts `grown_M`."""
        state = state._replace(read=state.read.with_room(len(token_M)))
        row_LM, weight_M11L = state.before(grown_M)
        x_M1D = self.position.at(self.embedding(token_M), state.len_N[grown_M])[:, None]
        end = state.read.length
        for layer, (key_C1HK, value_C1HK) in zip(self.layers, state.read.layers, strict=True):
            past = key_C1HK[:, 0][row_LM], value_C1HK[:, 0][row_LM]
            x_M1D = layer.step(x_M1D, past, len(row_LM) - 1, weight_M11L)
            for all_C1HK, own_LMHK in zip((key_C1HK, value_C1HK), past, strict=True):
                all_C1HK[end : end + len(token_M), 0] = own_LMHK[-1]
        return state.grown(grown_M, self._logits(self.norm(x_M1D[:, 0])).float().log_softmax(-1))

    def _nothing(self, N: int) -> Texts:
        heads = [layer.attention.heads for layer in self.layers]
        V, width = self.embedding.weight.shape
        like_1HK = self.embedding.weight.new_empty(1, heads[0], width // heads[0])
        return Texts.empty(len(heads), like_1HK, self.embedding.weight.new_empty(N, V, dtype=torch.float))
