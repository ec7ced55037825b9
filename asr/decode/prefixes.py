"""Beams of prefixes that grow by at most one token per step, in which equal prefixes are merged.

Shapes: B utterances, K beam, N = B x K prefixes, C candidates, S steps, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

_FACTOR, _STEP = 6_364_136_223_846_793_005, 1_442_695_040_888_963_407  # of a 64-bit hash


class Names(NamedTuple):
    """Identifies the prefixes of a beam (B, K): a hash of the whole prefix, its last token or -1, and its length."""

    hash_BK: Tensor
    last_BK: Tensor
    count_BK: Tensor

    @classmethod
    def empty(cls, B: int, K: int, device: torch.device) -> Names:
        """Return the names of empty prefixes."""
        zero_BK = torch.zeros(B, K, dtype=torch.long, device=device)
        return cls(zero_BK, zero_BK - 1, zero_BK)

    def follow(self, step: Step) -> Names:
        """Return the names after a step."""
        hash_BK, last_BK, count_BK = (x.gather(1, step.from_BK) for x in self)
        longer_BK = _extended(hash_BK, step.gained_BK)
        return Names(
            torch.where(step.stays_BK, hash_BK, longer_BK),
            torch.where(step.stays_BK, last_BK, step.gained_BK),
            count_BK + ~step.stays_BK,
        )


class Step(NamedTuple):
    """The prefixes that a step keeps: their scores, the beam places they come from, and the token each gained or -1."""

    score_BK: Tensor
    from_BK: Tensor
    gained_BK: Tensor

    @property
    def stays_BK(self) -> Tensor:
        """Marks the prefixes that gained no token."""
        return self.gained_BK < 0

    @property
    def from_N(self) -> Tensor:
        """The same as from_BK, counted over all utterances: rows of (N, ...)."""
        B, K = self.from_BK.shape
        return (self.from_BK + torch.arange(B, device=self.from_BK.device)[:, None] * K).flatten()


class Extra(NamedTuple):
    """What enters the ranking of prefixes beside their own scores: of those that stay, and of those that grow."""

    stay_BK: Tensor
    longer_BKV: Tensor


def merge(longer_BKV: Tensor, names: Names, alive_BK: Tensor) -> tuple[Tensor, Tensor]:
    """Split scores of extended prefixes: sums (B, K) for prefixes already in the beam, and the others (B, K, V)."""
    hash_BK, last_BK, _ = names
    joined_BKK = _extended(hash_BK[:, :, None], last_BK[:, None]) == hash_BK[:, None]  # i plus j's last token is j
    joined_BKK &= (alive_BK & (last_BK >= 0))[:, None]
    column_BKK = last_BK.clamp(min=0)[:, None].expand(joined_BKK.shape)
    into_BK = longer_BKV.gather(2, column_BKK).masked_fill(~joined_BKK, -math.inf).logsumexp(1)
    moved_BKV = torch.zeros_like(longer_BKV).scatter_add_(2, column_BKK, joined_BKK.to(longer_BKV.dtype))
    return into_BK, longer_BKV.masked_fill(moved_BKV > 0, -math.inf)


def keep_best(stay_BK: Tensor, longer_BKV: Tensor, names: Names, bonus: float, extra: Extra | None = None) -> Step:
    """Keep the K best of all prefixes, unchanged or with one more token, ranked with a bonus for each token.

    The scores that it returns are without the bonus and what is extra, but -inf where that is.
    """
    K, V = longer_BKV.shape[1:]
    score_BC = torch.cat([stay_BK, longer_BKV.flatten(1)], dim=1)
    ranked_BC = score_BC
    if bonus:
        count_BC = torch.cat([names.count_BK, (names.count_BK + 1).repeat_interleave(V, 1)], dim=1)
        ranked_BC = score_BC + bonus * count_BC
    if extra is not None:
        ranked_BC = ranked_BC + torch.cat([extra.stay_BK, extra.longer_BKV.flatten(1)], dim=1)
    ranked_BK, at_BK = ranked_BC.topk(K)
    score_BK, stays_BK = score_BC.gather(1, at_BK).where(ranked_BK > -math.inf, -math.inf), at_BK < K
    return Step(score_BK, torch.where(stays_BK, at_BK, (at_BK - K) // V), torch.where(stays_BK, -1, (at_BK - K) % V))


class History:
    """The steps of a search, from which the texts are read at its end."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def texts(self, b: int, places: Sequence[tuple[int, int]]) -> list[tuple[int, ...]]:
        """Return the tokens of prefixes of utterance b, each given by the number of steps until then and its place."""
        found = []
        for count, at in places:
            tokens = []
            for from_BK, gained_BK in reversed(self._lists[:count]):
                tokens.append(gained_BK[b][at])
                at = from_BK[b][at]
            found.append(tuple(token for token in reversed(tokens) if token >= 0))
        return found

    @cached_property
    def _lists(self) -> list[tuple[list[list[int]], list[list[int]]]]:
        return [(step.from_BK.tolist(), step.gained_BK.tolist()) for step in self.steps]


def _extended(hash_X: Tensor, token_X: Tensor) -> Tensor:
    """Return the hash of a prefix with one more token; with some thousand prefixes, collisions are not expected."""
    return hash_X * _FACTOR + (token_X + 1) * _STEP
