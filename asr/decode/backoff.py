"""A back-off n-gram model (Katz 1987) as an automaton: contexts are its nodes, n-grams its arcs.

Shapes: N hypotheses, W words, X nodes, E arcs, k words of an n-gram, M arcs of the hypotheses at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.decode.arpa import Order

ROOT = 0  # the empty context; its arcs are the 1-grams of all words
Ints = NDArray[np.int64]
Reals = NDArray[np.float32]


class BackOff(NamedTuple):
    """The automaton as tables.

    key_E: node x W + word of each arc, sorted.  row_X: where each node's arcs begin.  next_E: the longest known context
    after an arc.  fall_X: the context without its first word, whose probabilities are multiplied by the back-off weight
    of the longer one.
    """

    words: int
    orders: int
    key_E: Tensor
    next_E: Tensor
    log_prob_E: Tensor
    row_X: Tensor
    back_off_X: Tensor
    fall_X: Tensor

    def to(self, device: torch.device) -> BackOff:
        """Return a copy on `device`."""
        return BackOff(self.words, self.orders, *(x.to(device) for x in self[2:]))

    def score(self, word_N: Tensor, node_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability of one word in each context, and the contexts after it."""
        total_N = torch.zeros(len(node_N), device=node_N.device)
        at_N = torch.zeros_like(node_N)
        found_N = torch.zeros_like(node_N, dtype=torch.bool)
        for _ in range(self.orders):
            key_N = node_N * self.words + word_N
            at_N = torch.where(found_N, at_N, torch.searchsorted(self.key_E, key_N))
            found_N = found_N | (self.key_E[at_N] == key_N)
            total_N = torch.where(found_N, total_N, total_N + self.back_off_X[node_N])
            node_N = torch.where(found_N, node_N, self.fall_X[node_N])
        return total_N + self.log_prob_E[at_N], self.next_E[at_N]

    def all_words(self, node_N: Tensor) -> Tensor:
        """Return the log-probabilities (N, W) of every word in each context."""
        chain = [node_N]
        while bool(chain[-1].any()):
            chain.append(self.fall_X[chain[-1]])
        log_prob_NW = self.log_prob_E[: self.words].repeat(len(node_N), 1)
        for at_N in reversed(chain[:-1]):  # n-grams of a longer context override what it backs off to
            log_prob_NW += self.back_off_X[at_N, None]
            first_N = self.row_X[at_N]
            count_N = torch.where(at_N != ROOT, self.row_X[at_N + 1] - first_N, 0)
            row_M = torch.arange(len(at_N), device=at_N.device).repeat_interleave(count_N)
            m = torch.arange(len(row_M), device=at_N.device) - (count_N.cumsum(0) - count_N)[row_M]
            arc_M = first_N[row_M] + m
            log_prob_NW[row_M, self.key_E[arc_M] % self.words] = self.log_prob_E[arc_M]
        return log_prob_NW


def back_off(orders: Sequence[Order], words: int) -> BackOff:
    """Build the automaton of n-grams; every word must be among the 1-grams.

    If the first words of an n-gram are not an n-gram themselves, as can happen after pruning, they are added with the
    probability that they have by backing off.  Raises ValueError, whose argument is the line, for an n-gram given
    twice.
    """
    trie = _Trie(words)
    for order in orders:
        trie.add(order)
    trie.fall_back()
    kept_X = trie.worth_a_context()
    parent_X = trie.key_E // words
    return BackOff(
        words,
        len(orders),
        # Greater than any key, so that a look-up never runs off the end.
        torch.from_numpy(np.append(trie.key_E, np.int64(len(trie.fall_X)) * words)),
        torch.from_numpy(np.append(kept_X[trie.node_E], ROOT)),
        torch.from_numpy(np.append(trie.log_prob_X[trie.node_E], np.float32(0))),
        torch.from_numpy(np.searchsorted(parent_X, np.arange(len(trie.fall_X) + 1))),
        torch.from_numpy(trie.back_off_X),
        torch.from_numpy(kept_X[trie.fall_X]),
    )


class _Trie:
    """All n-grams by their words, first to last: the root, and a node for each n-gram below that of its first words.

    key_E, node_E: the arcs, sorted.  levels: the nodes of each order.
    """

    def __init__(self, words: int) -> None:
        self.words = words
        self.key_E: Ints = np.empty(0, np.int64)
        self.node_E: Ints = np.empty(0, np.int64)
        self.log_prob_X: Reals = np.zeros(1, np.float32)
        self.back_off_X: Reals = np.zeros(1, np.float32)
        self.fall_X: Ints = np.zeros(1, np.int64)
        self.levels: list[Ints] = []

    def add(self, order: Order) -> None:
        """Add the n-grams of the next order."""
        self.levels.append(np.empty(0, np.int64))
        node_E = np.zeros(len(order.words_Ek), np.int64)
        for level, word_E in enumerate(order.words_Ek.T[:-1]):
            key_E = node_E * self.words + word_E
            self._make(np.setdiff1d(key_E, self.key_E), level)
            node_E = self.node_E[np.searchsorted(self.key_E, key_E)]
        key_E = node_E * self.words + order.words_Ek[:, -1]
        unique_E, first_E = np.unique(key_E, return_index=True)
        if len(unique_E) < len(key_E):
            again = np.setdiff1d(np.arange(len(key_E)), first_E)[0]
            raise ValueError(int(order.line_E[again]))
        self._make(unique_E, len(self.levels) - 1, order.log_prob_E[first_E], order.back_off_E[first_E])

    def _make(self, key_E: Ints, level: int, log_prob_E: Reals | None = None, back_off_E: Reals | None = None) -> None:
        """Add nodes; without `log_prob_E` their probabilities are left to `fall_back`."""
        if len(key_E) == 0:
            return
        nothing = np.full(len(key_E), np.nan, np.float32)
        node_E = len(self.log_prob_X) + np.arange(len(key_E))
        self.levels[level] = np.append(self.levels[level], node_E)
        self.log_prob_X = np.append(self.log_prob_X, nothing if log_prob_E is None else log_prob_E)
        self.back_off_X = np.append(self.back_off_X, np.zeros_like(nothing) if back_off_E is None else back_off_E)
        self.key_E, self.node_E = np.append(self.key_E, key_E), np.append(self.node_E, node_E)
        sorted_E = np.argsort(self.key_E, kind="stable")
        self.key_E, self.node_E = self.key_E[sorted_E], self.node_E[sorted_E]

    def fall_back(self) -> None:
        """Find the context each one falls back to, and the missing probabilities, shorter n-grams first."""
        self.back_off_X[self.levels[-1]] = 0.0  # nothing is longer than these
        key_X = np.zeros(len(self.log_prob_X), np.int64)
        key_X[self.node_E] = self.key_E
        self.fall_X = np.zeros(len(key_X), np.int64)
        for node_N in self.levels[1:]:
            parent_N, word_N = key_X[node_N] // self.words, key_X[node_N] % self.words
            total_N = self.back_off_X[parent_N]
            at_N = self.fall_X[parent_N]
            for _ in range(len(self.levels)):
                found_N, child_N = self._child(at_N, word_N)
                total_N = total_N + np.where(found_N, 0, self.back_off_X[at_N])
                at_N = np.where(found_N, at_N, self.fall_X[at_N])
            self.fall_X[node_N] = child_N
            unknown_N = np.isnan(self.log_prob_X[node_N])
            self.log_prob_X[node_N[unknown_N]] = (total_N + self.log_prob_X[child_N])[unknown_N]

    def _child(self, node_N: Ints, word_N: Ints) -> tuple[NDArray[np.bool_], Ints]:
        key_N = node_N * self.words + word_N
        at_N = np.minimum(np.searchsorted(self.key_E, key_N), len(self.key_E) - 1)
        return self.key_E[at_N] == key_N, self.node_E[at_N]

    def worth_a_context(self) -> Ints:
        """Return for each node the longest context worth keeping: itself, or the nearest it falls back to.

        A context is worth keeping if it has a back-off weight or longer n-grams.
        """
        kept_X = np.arange(len(self.fall_X))
        needed_X = self.back_off_X != 0
        needed_X[self.key_E // self.words] = True
        for node_N in self.levels:
            kept_X[node_N] = np.where(needed_X[node_N], node_N, kept_X[self.fall_X[node_N]])
        return kept_X
