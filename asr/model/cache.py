"""Keys and values of the tokens so far, for decoders that work token by token.

Shapes: N hypotheses, M of them that grow, L tokens, H heads, K head width, C the cache's capacity in tokens,
V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from asr.lengths import within
from asr.model.attention import KeyValue
from asr.model.masks import log_weight


class Cache(NamedTuple):
    """Keys and values (C, N, H, K) of each layer's self-attention; the first `length` tokens are filled.

    Layers write into it, so each cache serves for one step only, and not for gradients.
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
                torch.index_select(old_CNHK[: self.length], 1, index_N, out=new_CNHK[: self.length])
            return new_CNHK

        return Cache(tuple((moved(key), moved(value)) for key, value in self.layers), self.length)


class Texts(NamedTuple):
    """Texts that need not grow at once, so that their lengths differ; common beginnings are kept once.

    read: a cache of the tokens of all texts, in the order in which they were read, as of one hypothesis.  row_NL: where
    the tokens of each text are in it.  len_N: how many these are; what follows them in row_NL means nothing.
    log_prob_NV: log-probabilities of the token after each text.
    """

    read: Cache
    row_NL: Tensor
    len_N: Tensor
    log_prob_NV: Tensor

    @classmethod
    def empty(cls, count: int, like_1HK: Tensor, log_prob_NV: Tensor) -> Texts:
        """Return empty texts for `count` layers."""
        none_N = torch.zeros(len(log_prob_NV), dtype=torch.long, device=log_prob_NV.device)
        return cls(Cache.empty(count, like_1HK), none_N[:, None][:, :0], none_N, log_prob_NV)

    def before(self, grown_M: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return where the tokens of some texts are in `read`, (L + 1, M), with one more place for the next token.

        The log-weights (M, 1, 1, L + 1) of these places are None if the texts are equally long.
        """
        len_M = self.len_N[grown_M]
        longest = int(len_M.max())
        row_LM = F.pad(self.row_NL[grown_M, :longest], (0, 1)).T
        if bool((len_M == longest).all()):
            return row_LM, None
        return row_LM, F.pad(log_weight(within(len_M, longest)), (0, 1))[:, None, None]

    def grown(self, grown_M: Tensor, log_prob_MV: Tensor) -> Texts:
        """Return the texts after the next M tokens of `read` have been appended to those at `grown_M`."""
        len_M, N = self.len_N[grown_M], len(self.len_N)
        row_NL = F.pad(self.row_NL, (0, int(len_M.max()) == self.row_NL.shape[1]))
        row_NL[grown_M, len_M] = self.read.length + torch.arange(len(len_M), device=len_M.device)
        log_prob_NV = log_prob_MV if len(len_M) == N else self.log_prob_NV.index_copy(0, grown_M, log_prob_MV)
        return Texts(
            self.read.filled(len(len_M)), row_NL, self.len_N.index_add(0, grown_M, torch.ones_like(len_M)), log_prob_NV
        )

    def reorder(self, index_N: Tensor) -> Texts:
        """Return the texts `index_N`."""
        return Texts(self.read, self.row_NL[index_N], self.len_N[index_N], self.log_prob_NV[index_N])
