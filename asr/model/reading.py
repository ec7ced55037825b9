"""Finished texts are read once more by the decoder, all tokens at the same time.

Shapes: B windows, P start tokens, L tokens, T frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from asr.lengths import pad_tokens
from asr.model.decoder import Decoder
from asr.model.masks import Memory

MOST_WEIGHTS = 1 << 22  # attention weights of a layer at a time: 16 MB


class Reading(NamedTuple):
    """A part of the windows: which, their memory, start tokens and texts, and the texts as (B, L), padded with 0."""

    part: slice
    memory: Memory
    prefix_BP: Tensor
    texts: Sequence[Sequence[int]]
    tokens_BL: Tensor

    @property
    def fed_BL(self) -> Tensor:
        """The tokens that the decoder reads."""
        return torch.cat([self.prefix_BP, self.tokens_BL], 1)

    @property
    def predicting(self) -> slice:
        """The positions whose outputs predict the tokens: one before each token."""
        first = self.prefix_BP.shape[1] - 1
        return slice(first, first + self.tokens_BL.shape[1])


def readings(decoder: Decoder, memory: Memory, prefix_BP: Tensor, texts: Sequence[Sequence[int]]) -> Iterator[Reading]:
    """Split windows into parts small enough to keep the attention weights small; texts have no start or end tokens."""
    if not texts:
        return
    tokens_BL = pad_tokens(texts)[0].to(prefix_BP.device)
    heads = max(decoder.heads)
    size = max(1, MOST_WEIGHTS // (heads * (prefix_BP.shape[1] + tokens_BL.shape[1]) * memory.states_BTD.shape[1]))
    for at in range(0, len(texts), size):
        part = slice(at, at + size)
        yield Reading(part, memory.part(part), prefix_BP[part], texts[part], tokens_BL[part])
