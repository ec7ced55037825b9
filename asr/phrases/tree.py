"""The prefix tree of phrase lists: which tokens may come next after a text.

Shapes: B utterances, L tokens, N positions, V vocabulary, X nodes, E transitions, M transitions of the positions at
hand, U distinct tokens of the lists, W = U + 1 (the last stands for all tokens outside the lists), S roots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from asr.phrases.paths import INSIDE, Paths


class PhraseTree(NamedTuple):
    """Phrase lists, one per utterance or one for all.

    start_B: the node where the texts of each list begin.  token_U: the tokens of the lists, ascending.  column_E: the
    column W of each transition's token, the last one if it leads out of its list.  begins_SW: the tokens with which
    phrases begin at each root, in the order of the nodes.
    """

    paths: Paths
    start_B: Tensor
    token_U: Tensor
    column_E: Tensor
    begins_SW: Tensor

    @classmethod
    def of(cls, lists: Sequence[Paths]) -> PhraseTree:
        """Build the tree of lists in the same vocabulary."""
        paths = Paths.join(lists)
        start_B, token_E = paths.open_X.unique(), paths.key_E % len(paths.opens_V)
        onward_E = paths.next_E - paths.open_X[paths.next_E] > INSIDE
        token_U = token_E[onward_E].unique()
        column_E = torch.where(onward_E, torch.searchsorted(token_U, token_E), len(token_U))
        begins_SW = torch.zeros(2 * len(start_B), len(token_U) + 1, dtype=torch.bool)
        begins_SW[:, -1] = True
        roots = (paths.root_X == torch.arange(len(paths.root_X))).nonzero()[:, 0]
        for begins_W, first, end in zip(begins_SW, paths.row_X[roots], paths.row_X[roots + 1], strict=True):
            begins_W[column_E[first:end]] = True
        return cls(paths, start_B, token_U, column_E, begins_SW)

    def to(self, device: torch.device) -> PhraseTree:
        """Return a copy on `device`."""
        paths, *tables = self
        return PhraseTree(paths.to(device), *(x.to(device) for x in tables))

    def along(self, tokens_BL: Tensor) -> Tensor:
        """Return the nodes (B, L + 1) of texts, before the first and after each token."""
        nodes = [self.start_B.expand(len(tokens_BL))]
        for tokens_B in tokens_BL.unbind(1):
            nodes.append(self.paths.follow(tokens_B, nodes[-1]))
        return torch.stack(nodes, dim=1)

    def ahead(self, node_N: Tensor) -> Tensor:
        """Mark the columns (N, W) that may come next: tokens that begin or continue a phrase, and the last column."""
        open_N = self.paths.open_X[node_N]
        s_N = 2 * torch.searchsorted(self.start_B, open_N) + self.paths.root_X[node_N] - open_N
        ahead_NW = self.begins_SW[s_N]
        place_M, row_M = self.paths.beyond_roots(node_N)
        ahead_NW[place_M, self.column_E[row_M]] = True
        return ahead_NW
