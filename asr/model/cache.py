"""Keys and values of the tokens so far, for decoders that work token by token.

Shapes: N hypotheses, L tokens, H heads, K head width, C the cache's capacity in tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from asr.model.attention import KeyValue


class Cache(NamedTuple):
    """Keys and values (C, N, H, K) of each layer's self-attention; the first `length` tokens are filled.

    Layers write into it, so each cache serves for one step only.
    """

    layers: tuple[KeyValue, ...]
    length: int = 0

    @classmethod
    def empty(cls, count: int, like_NHK: Tensor) -> Cache:
        """Return an empty cache for `count` layers."""
        none_CNHK = like_NHK.new_empty(0, *like_NHK.shape)
        return cls(((none_CNHK, none_CNHK),) * count)

    def with_room(self, tokens: int) -> Cache:
        """Return the cache, or a copy, with room for `tokens` more; the capacity doubles, so that copies are rare."""
        length, held_CNHK = self.length + tokens, self.layers[0][0]
        if length <= len(held_CNHK):
            return self
        everyone_N = torch.arange(held_CNHK.shape[1], device=held_CNHK.device)
        return self._moved(2 * length + 8, everyone_N)

    def filled(self, tokens: int) -> Cache:
        """Return the cache as it is after the layers have written `tokens` more."""
        return self._replace(length=self.length + tokens)

    def reorder(self, index_N: Tensor) -> Cache:
        """Return the cache of the hypotheses `index_N`."""
        return self._moved(len(self.layers[0][0]), index_N)

    def _moved(self, capacity: int, index_N: Tensor) -> Cache:
        def moved(old_CNHK: Tensor) -> Tensor:
            new_CNHK = old_CNHK.new_empty(capacity, len(index_N), *old_CNHK.shape[2:])
            if self.length:
                new_CNHK[: self.length] = old_CNHK[: self.length, index_N]
            return new_CNHK

        return Cache(tuple((moved(key), moved(value)) for key, value in self.layers), self.length)
