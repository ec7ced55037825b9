"""Autoregressive Transformer decoder: all tokens at once in training, token by token in search.

Shapes: B batch, N = B x beam hypotheses, L tokens, Q = beam x L queries per utterance, T encoder frames, D width,
H heads, K head width, V vocabulary.  In teacher forcing N are rows (see asr.model.rows), M some of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.compaction import compacted
from asr.model.attention import Attend, CrossAttention, KeyValue, SelfAttention
from asr.model.cache import Cache
from asr.model.layers import Dropout, FeedForward, Residual
from asr.model.masks import Memory, causal
from asr.model.pointer import Pointer
from asr.model.position import Position
from asr.model.rows import Rows

MOST_LOGITS = 1 << 22  # at a time (16 MB) where only a few of them are wanted


class DecoderLayer(nn.Module):
    """Self-attention over the past, cross-attention to the encoder, and feed-forward, each with its residual."""

    def __init__(
        self,
        dim: int,
        self_attention: SelfAttention,
        cross_attention: CrossAttention,
        feed_forward: FeedForward,
        residual: Residual,
        p: float,
    ) -> None:
        super().__init__()
        self.self_attention, self.self_residual = self_attention, residual(dim, p)
        self.cross_attention, self.cross_residual = cross_attention, residual(dim, p)
        self.feed_forward, self.feed_forward_residual = feed_forward, residual(dim, p)

    def forward(
        self,
        x_ND: Tensor,
        rows: Rows,
        weight_BHLL: Tensor,
        memory: KeyValue,
        weight_B11T: Tensor,
        attend: Attend | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Process all tokens of all texts at once; `attend`, if given, replaces the cross-attention's own.

        weight_BHLL: log-weights of the tokens, to which they broadcast.
        """
        y_ND = self.self_attention(self.self_residual.enter(x_ND), rows, weight_BHLL)
        x_ND = self.self_residual.leave(x_ND, y_ND)
        x_BLD = rows.spread(self.cross_residual.enter(x_ND))
        # All texts of an utterance become queries to the same memory, so keys and values are never copied.
        y_BQD = x_BLD.reshape(memory[0].shape[0], -1, x_BLD.shape[-1])
        y_BQD, attention = self.cross_attention(y_BQD, memory, weight_B11T, attend or self.cross_attention.attend)
        x_ND = self.cross_residual.leave(x_ND, rows.pack(y_BQD.reshape(x_BLD.shape)))
        y_ND = self.feed_forward(self.feed_forward_residual.enter(x_ND))
        return self.feed_forward_residual.leave(x_ND, y_ND), attention

    def step(self, x_NLD: Tensor, past: KeyValue, length: int, memory: KeyValue, weight_B11T: Tensor) -> Tensor:
        """Feed L more tokens to each of N = B x beam hypotheses; the beams of an utterance share its memory."""
        y_NLD = self.self_attention.step(self.self_residual.enter(x_NLD), past, length)
        x_NLD = self.self_residual.leave(x_NLD, y_NLD)
        y_BQD = self.cross_residual.enter(x_NLD).reshape(memory[0].shape[0], -1, x_NLD.shape[-1])
        y_BQD, _ = self.cross_attention(y_BQD, memory, weight_B11T, self.cross_attention.attend)
        x_NLD = self.cross_residual.leave(x_NLD, y_BQD.reshape(x_NLD.shape))
        y_NLD = self.feed_forward(self.feed_forward_residual.enter(x_NLD))
        return self.feed_forward_residual.leave(x_NLD, y_NLD)


class DecoderState(NamedTuple):
    """What the decoder remembers between two steps; a step writes into it, so each state serves for one step only.

    utterance_N: the row of the memory for each hypothesis; hypotheses of one utterance are adjacent.  past: keys and
    values of the tokens so far.  memory: each layer's keys and values (B, H, T, K) of the encoder states.
    """

    utterance_N: Tensor
    past: Cache
    memory: tuple[KeyValue, ...]
    weight_B11T: Tensor


class Decoder(nn.Module):
    """Token embedding, positions, layers, the output projection and optionally a pointer (see asr.model.copying)."""

    def __init__(
        self,
        embedding: nn.Embedding,
        position: Position,
        layers: Iterable[DecoderLayer],
        norm: nn.Module,
        output: nn.Module,
        dropout: float,
        pointer: Pointer | None = None,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.position = position
        self.dropout = Dropout(dropout)
        self.layers: Iterable[DecoderLayer] = nn.ModuleList(layers)  # type: ignore[assignment]
        self.norm = norm
        self.output = output
        self.pointer = pointer

    @property
    def heads(self) -> list[int]:
        """Number of cross-attention heads of each layer."""
        return [layer.cross_attention.heads for layer in self.layers]

    def forward(
        self, tokens_BL: Tensor, memory: Memory, attend: Attend | None = None, len_B: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Teacher forcing: return logits (B, L, V) and, if `attend` forms them, cross-attention weights per layer.

        An utterance of the memory may have several texts, which must be adjacent.  Tokens attend only to the tokens
        before them, so the padding after a target never changes it; it is not even computed if `len_B` gives the
        lengths.
        """
        x_BLD, attentions = self.read(tokens_BL, memory, attend, len_B)
        return self.output(x_BLD), attentions

    def read(
        self, tokens_BL: Tensor, memory: Memory, attend: Attend | None = None, len_B: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the states (B, L, D) that `forward` turns into logits, and the same attention weights."""
        B, L = tokens_BL.shape
        rows = Rows(torch.full((B,), L, device=tokens_BL.device) if len_B is None else len_B, L)
        x_ND = self.dropout(rows.pack(self.position(self.embedding(tokens_BL))))
        causal_LL = causal(tokens_BL.shape[1], tokens_BL.device)
        weight_B11T = memory.log_weight_BT[:, None, None]
        attentions = []
        for layer in self.layers:
            key_value = layer.cross_attention.project_memory(memory.states_BTD)
            x_ND, attention = layer(x_ND, rows, causal_LL, key_value, weight_B11T, attend)
            if attention is not None:
                attentions.append(attention)
        return rows.spread(self.norm(x_ND)), attentions

    def log_probs(self, x_BLD: Tensor, tokens_BL: Tensor) -> Tensor:
        """Return the log-probabilities (B, L) in float32 of tokens from the states of `read`, few logits at a time."""
        log_prob_N = torch.zeros(tokens_BL.numel(), device=x_BLD.device)
        rows = max(1, MOST_LOGITS // self.embedding.num_embeddings)
        for at in range(0, len(log_prob_N), rows):
            some = slice(at, at + rows)
            logits_MV = self.output(x_BLD.flatten(0, 1)[some]).float()
            log_prob_N[some] = -F.cross_entropy(logits_MV, tokens_BL.flatten()[some], reduction="none")
        return log_prob_N.view(tokens_BL.shape)

    def start(self, memory: Memory) -> DecoderState:
        """Return the state before the first token, one hypothesis per utterance."""
        projected = (layer.cross_attention.project_memory(memory.states_BTD) for layer in self.layers)
        key_values = tuple((k.contiguous(), v.contiguous()) for k, v in projected)  # every step reads all of them
        utterance_N = torch.arange(len(memory.states_BTD), device=memory.states_BTD.device)
        k_BHTK = key_values[0][0]
        past = Cache.empty(len(key_values), k_BHTK.new_empty(len(k_BHTK), k_BHTK.shape[1], k_BHTK.shape[3]))
        return DecoderState(utterance_N, past, key_values, memory.log_weight_BT[:, None, None])

    def step(self, tokens_NL: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Feed L tokens to each hypothesis: log-probabilities (N, V) of the next one, in float32, and the new state."""
        x_ND, state = self.advance(tokens_NL, state)
        return self.output(x_ND).float().log_softmax(-1), state

    def advance(self, tokens_NL: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Return the vectors (N, D) that `step` turns into log-probabilities, and the new state."""
        past = state.past.with_room(tokens_NL.shape[1])
        x_NLD = self.position(self.embedding(tokens_NL), start=past.length)
        for layer, own, memory in zip(self.layers, past.layers, state.memory, strict=True):
            x_NLD = layer.step(x_NLD, own, past.length, memory, state.weight_B11T)
        return self.norm(x_NLD[:, -1]), state._replace(past=past.filled(tokens_NL.shape[1]))

    def reorder(self, state: DecoderState, index_N: Tensor) -> DecoderState:
        """Keep the hypotheses `index_N`; each remaining utterance must keep equally many, adjacent to each other.

        The memory is compacted in place, so utterances must be dropped as in asr.compaction.  The old state becomes
        invalid.
        """
        utterance_N = state.utterance_N[index_N]
        rows, row_of_N = utterance_N.unique_consecutive(return_inverse=True)
        memory = tuple((compacted(key, rows), compacted(value, rows)) for key, value in state.memory)
        return DecoderState(row_of_N, state.past.reorder(index_N), memory, state.weight_B11T[rows])
