"""Shallow fusion (Gulcehre et al. 2015) for beams of prefixes, of which some gain a token at a step and others none.

Shapes: B utterances, K beam, N = B x K prefixes, P start tokens, V vocabulary, S scorers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asr.decode.prefixes import Extra, Step
from asr.decode.search import Rise, Weighted, reorder, start, step, weighted_sum


class Fusion(NamedTuple):
    """Language models and phrase lists, and the end token, which they score when a text has ended."""

    scorers: Sequence[Weighted] = ()
    end_id: int = 0

    def open(self, prefix_BP: Tensor, K: int) -> Added:
        """Return what is added to K empty prefixes of each utterance."""
        log_probs, states = start(self.scorers, None, prefix_BP, K)
        zero_BKS = torch.zeros(len(prefix_BP), K, len(self.scorers), dtype=torch.double, device=prefix_BP.device)
        return Added(self, zero_BKS, log_probs, states)

    @property
    def rise(self) -> Rise:
        """The most by which the sum of the weighted parts can still rise."""
        return Rise(
            sum(w.weight * w.rise.each for w in self.scorers), sum(w.weight * w.rise.once for w in self.scorers)
        )

    def total(self, parts: Sequence[float]) -> float:
        """Return the weighted sum of a finished text's parts."""
        return sum(w.weight * part for w, part in zip(self.scorers, parts, strict=True))

    def named(self, parts: Sequence[float]) -> dict[str, float]:
        """Return the parts by the names of their scorers."""
        return {w.name: part for w, part in zip(self.scorers, parts, strict=True)}


@dataclass
class Added:
    """The parts of the score that scorers add to the prefixes of a beam, unweighted; a function of the text alone."""

    fusion: Fusion
    parts_BKS: Tensor
    log_probs: list[Tensor]
    states: list[Any]

    @property
    def total_BK(self) -> Tensor:
        """The weighted sum of the parts."""
        return self.parts_BKS @ self.parts_BKS.new_tensor([w.weight for w in self.fusion.scorers])

    @property
    def ended_BKS(self) -> Tensor:
        """The parts, end token included, of the texts that end here."""
        row_N = torch.arange(self.parts_BKS.shape[:2].numel(), device=self.parts_BKS.device)
        return self.parts_BKS + self._next(row_N, torch.full_like(row_N, self.fusion.end_id))

    def extra(self, ends_BK: Tensor) -> Extra | None:
        """Return what enters the ranking of the next step; ends_BK: where staying means to end."""
        if not self.fusion.scorers:
            return None
        total_BK = self.total_BK
        gain_NV = weighted_sum(self.fusion.scorers, self.log_probs).double()
        gain_BKV = gain_NV.expand(total_BK.numel(), -1).unflatten(0, total_BK.shape)
        end_BK = gain_BKV[..., self.fusion.end_id].where(ends_BK, 0.0)
        return Extra(total_BK + end_BK, total_BK[..., None] + gain_BKV)

    def follow(self, taken: Step) -> Added:
        """Return what is added after a step; for vacant places it means nothing."""
        from_N = taken.from_N
        token_N = taken.gained_BK.where(taken.score_BK.isfinite(), -1).flatten()
        gained_BKS = self._next(from_N, token_N.clamp(min=0)).where((token_N >= 0).view(*taken.from_BK.shape, 1), 0.0)
        parts_BKS = self.parts_BKS.flatten(0, 1)[from_N].view_as(gained_BKS) + gained_BKS
        states = reorder(self.fusion.scorers, self.states, from_N)
        return Added(self.fusion, parts_BKS, *step(self.fusion.scorers, token_N[:, None], states))

    def _next(self, row_N: Tensor, token_N: Tensor) -> Tensor:
        """Return the scores (B, K, S) of one more token after the prefixes in some rows."""
        parts_BKS = torch.zeros_like(self.parts_BKS)
        for s, x_NV in enumerate(self.log_probs):
            parts_BKS[..., s] = x_NV[row_N if len(x_NV) > 1 else 0, token_N].view(parts_BKS.shape[:2])
        return parts_BKS
