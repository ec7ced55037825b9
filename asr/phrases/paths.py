"""The positions of texts in phrase lists, as tables that serve many texts at once.

Shapes: N positions (hypotheses, or tokens of targets), B lists, V vocabulary, X nodes, E transitions, M transitions of
the positions at hand.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

OPEN, INSIDE = 0, 1  # the two roots: between words, where any phrase may begin, and inside a word
BEYOND = torch.iinfo(torch.long).max  # the last key, so that a look-up never runs off the end


class Paths(NamedTuple):
    """The nodes of one or several lists and where tokens lead from them; the first two nodes of a list are its roots.

    key_E: node x V + token of each transition, sorted.  next_E: the node that it leads to.  row_X: where each node's
    transitions begin.  root_X: each node's root, where tokens without a transition are looked up; without one there
    either, they lead to a root.  open_X: the first node of each node's list.  opens_V: marks tokens after which a word
    may begin.
    """

    key_E: Tensor
    next_E: Tensor
    row_X: Tensor
    root_X: Tensor
    open_X: Tensor
    opens_V: Tensor

    def to(self, device: torch.device) -> Paths:
        """Return a copy on `device`."""
        return Paths(*(x.to(device) for x in self))

    def follow(self, tokens_N: Tensor, node_N: Tensor) -> Tensor:
        """Return the nodes after one more token each."""
        root_N = self.open_X[node_N] + torch.where(self.opens_V[tokens_N], OPEN, INSIDE)
        root_N = self._look_up(self.root_X[node_N], tokens_N, root_N)
        return self._look_up(node_N, tokens_N, root_N)

    def beyond_roots(self, node_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return the transitions in which nodes differ from their roots, as positions (M,) in node_N and rows (M,)."""
        first_N = self.row_X[node_N]
        count_N = torch.where(self.root_X[node_N] == node_N, 0, self.row_X[node_N + 1] - first_N)
        place_M = torch.arange(len(node_N), device=node_N.device).repeat_interleave(count_N)
        m = torch.arange(len(place_M), device=node_N.device) - (count_N.cumsum(0) - count_N)[place_M]
        return place_M, first_N[place_M] + m

    def _look_up(self, node_N: Tensor, tokens_N: Tensor, otherwise_N: Tensor) -> Tensor:
        key_N = node_N * len(self.opens_V) + tokens_N
        at_N = torch.searchsorted(self.key_E, key_N)
        return torch.where(self.key_E[at_N] == key_N, self.next_E[at_N], otherwise_N)

    @classmethod
    def join(cls, lists: Sequence[Paths]) -> Paths:
        """Join several lists in the same vocabulary; the nodes of each are numbered after those of earlier lists."""
        V = len(lists[0].opens_V)
        node_B = list(itertools.accumulate((len(one.root_X) for one in lists), initial=0))[:-1]
        row_B = list(itertools.accumulate((len(one.key_E) - 1 for one in lists), initial=0))[:-1]
        last = lists[-1]
        return cls(
            key_E=torch.cat([*(one.key_E[:-1] + V * x for one, x in zip(lists, node_B, strict=True)), last.key_E[-1:]]),
            next_E=torch.cat([*(one.next_E[:-1] + x for one, x in zip(lists, node_B, strict=True)), last.next_E[-1:]]),
            row_X=torch.cat(
                [*(one.row_X[:-1] + e for one, e in zip(lists, row_B, strict=True)), last.row_X[-1:] + row_B[-1]]
            ),
            root_X=torch.cat([one.root_X + x for one, x in zip(lists, node_B, strict=True)]),
            open_X=torch.cat([one.open_X + x for one, x in zip(lists, node_B, strict=True)]),
            opens_V=last.opens_V,
        )
