"""Phrases of tokens as an automaton (Aho and Corasick 1975) whose gains depend on the match so far.

Shapes: N hypotheses, V vocabulary, X nodes, E transitions, M transitions of the hypotheses at hand (asr.phrases.paths).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from asr.phrases.paths import BEYOND, INSIDE, OPEN, Paths


class Transitions(NamedTuple):
    """The finished automaton: its paths, and the gains of their transitions, gain_E.

    Any other token gains share_X4 @ row_4V: the loss where the match breaks off, which differs between tokens that
    continue a word and all others, and the gain of tokens that begin a phrase at the node's root.
    """

    paths: Paths
    gain_E: Tensor
    share_X4: Tensor
    row_4V: Tensor

    def to(self, device: torch.device) -> Transitions:
        """Return a copy on `device`."""
        return Transitions(
            self.paths.to(device), self.gain_E.to(device), self.share_X4.to(device), self.row_4V.to(device)
        )

    def gains(self, node_N: Tensor) -> Tensor:
        """Return what each next token would gain: (N, V), or (1, V) if it is the same for all."""
        if bool((node_N == node_N[0]).all()):
            node_N = node_N[:1]
        gain_NV = self.share_X4[node_N] @ self.row_4V
        place_M, row_M = self.paths.beyond_roots(node_N)
        gain_NV[place_M, self.paths.key_E[row_M] % self.row_4V.shape[1]] = self.gain_E[row_M]
        return gain_NV


class WordEdges:
    """Which tokens continue the word before them, and after which tokens a word may begin."""

    def __init__(self, joins: Sequence[bool], opens: Sequence[bool]) -> None:
        self.joins, self.opens = joins, opens  # lists, since single look-ups are slow in a tensor
        self.opens_V = torch.tensor(opens)


@dataclass
class _Node:
    """The phrases that begin with `path`.

    pending: the match's worth while it can still grow, the highest that one of these phrases gives for this many
    tokens.  final: its lasting worth if it ends here, None if no phrase does.  fall: see Automaton._fall.
    """

    path: tuple[int, ...]
    pending: float = 0.0
    final: float | None = None
    children: dict[int, int] = field(default_factory=dict)
    fall: tuple[tuple[int, float], tuple[int, float]] | None = None


class Automaton:
    """Collects phrases, each a sequence of tokens with a weight per token; `paths` or `transitions` finishes it."""

    def __init__(self, edges: WordEdges) -> None:
        self.edges = edges
        self._nodes = [_Node(()), _Node(())]

    def add(self, phrase: Sequence[int], weight: float) -> None:
        """Add a phrase; if it is added twice, the larger weight counts."""
        at = OPEN
        for depth, token in enumerate(phrase, start=1):
            if token not in self._nodes[at].children:
                self._nodes[at].children[token] = len(self._nodes)
                self._nodes.append(_Node(tuple(phrase[:depth])))
            at = self._nodes[at].children[token]
            self._nodes[at].pending = max(self._nodes[at].pending, depth * weight)
        self._nodes[at].final = max(self._nodes[at].final or 0.0, len(phrase) * weight)

    def paths(self) -> Paths:
        """Return where tokens lead in the phrases added so far."""
        return self._close()[0]

    def transitions(self) -> Transitions:
        """Return the automaton of all phrases added so far, as tables."""
        paths, gain_E = self._close()
        nodes = self._nodes
        losses = [[self._to_root(at, joins=joins) for joins in (False, True)] for at in range(len(nodes))]
        row_4V = torch.zeros(4, len(self.edges.joins))
        row_4V[1] = torch.tensor(self.edges.joins)
        row_4V[0] = 1 - row_4V[1]
        for root in (OPEN, INSIDE):
            for token, at in nodes[root].children.items():
                row_4V[2 + root, token] = nodes[at].pending
        roots = paths.root_X.tolist()
        shares = [[*loss, root == OPEN, root == INSIDE] for loss, root in zip(losses, roots, strict=True)]
        return Transitions(paths, gain_E, torch.tensor(shares), row_4V)

    def most(self) -> tuple[float, float]:
        """Return the largest weight of a token, and how far a match's pending worth can be below that for its tokens.

        Each token of a finished text gains at most the largest weight, and those before the match have gained theirs.
        So further gains are at most that weight for each token to come, and once the second number.
        """
        nodes = self._nodes[INSIDE + 1 :]
        weight = max((node.pending / len(node.path) for node in nodes), default=0.0)
        return weight, max((weight * len(node.path) - node.pending for node in nodes), default=0.0)

    def _close(self) -> tuple[Paths, Tensor]:
        """Return where each transition leads that does more than fall back to a root, and what it gains."""
        nodes, V = self._nodes, len(self.edges.joins)
        nodes[INSIDE].children = {t: at for t, at in nodes[OPEN].children.items() if not self.edges.joins[t]}
        order = sorted(range(INSIDE + 1, len(nodes)), key=lambda at: len(nodes[at].path))
        for at in order:  # a fall leads to shorter paths
            nodes[at].fall = self._fall(at, joins=False), self._fall(at, joins=True)
        rows = [sorted((t, *self._advance(at, t)) for t in self._tokens(at)) for at in range(len(nodes))]
        entries = [(at * V + t, to, gain) for at, row in enumerate(rows) for t, to, gain in row]
        entries.append((BEYOND, OPEN, 0.0))
        roots = [OPEN, INSIDE, *(self._root(node.path[-1]) for node in nodes[2:])]
        paths = Paths(
            key_E=torch.tensor([key for key, _, _ in entries]),
            next_E=torch.tensor([to for _, to, _ in entries]),
            row_X=torch.tensor([0, *(len(row) for row in rows)]).cumsum(0),
            root_X=torch.tensor(roots),
            open_X=torch.full((len(nodes),), OPEN),
            opens_V=self.edges.opens_V,
        )
        return paths, torch.tensor([gain for _, _, gain in entries])

    def _root(self, last: int) -> int:
        return OPEN if self.edges.opens[last] else INSIDE

    def _advance(self, at: int, token: int) -> tuple[int, float]:
        """Return the node after one more token, and the gain."""
        total = 0.0
        for below, gain in self._falls(at, joins=self.edges.joins[token]):
            total += gain
            node = self._nodes[below]
            if (child := node.children.get(token)) is not None:
                return child, total + self._nodes[child].pending - node.pending
        return self._root(token), total

    def _falls(self, at: int, *, joins: bool) -> Iterator[tuple[int, float]]:
        """Yield the node itself, then the nodes it falls to, down to a root, with the gain of each fall."""
        yield at, 0.0
        while (fall := self._nodes[at].fall) is not None:
            at, gain = fall[joins]
            yield at, gain

    def _to_root(self, at: int, *, joins: bool) -> float:
        return sum(gain for _, gain in self._falls(at, joins=joins))

    def _tokens(self, at: int) -> set[int]:
        """Return the tokens that a node does not treat as its root would."""
        below = {node for joins in (False, True) for node, _ in self._falls(at, joins=joins)} - {OPEN, INSIDE}
        return set(self._nodes[at].children).union(*(self._nodes[node].children for node in below))

    def _fall(self, at: int, *, joins: bool) -> tuple[int, float]:
        """Return where the match continues if no phrase of the node does, and the gain or loss.

        A phrase that has ended at the end of a word is kept; without one the match drops its first token.  The
        remaining tokens are matched again.  joins: whether the next token continues the last word.
        """
        node = self._nodes[at]
        kept, value = self._ended(node, joins=joins)
        skip = max(1, kept)
        to, total = self._root(node.path[skip - 1]), value - node.pending
        for token in node.path[skip:]:
            to, gain = self._advance(to, token)
            total += gain
        return to, total

    def _ended(self, node: _Node, *, joins: bool) -> tuple[int, float]:
        """Return length and worth of the longest phrase on a node's path that ends at the end of a word."""
        at, found = OPEN, (0, 0.0)
        for depth, token in enumerate(node.path, start=1):
            at = self._nodes[at].children[token]
            inside = self.edges.joins[node.path[depth]] if depth < len(node.path) else joins
            final = self._nodes[at].final
            if final is not None and not inside:
                found = depth, final
        return found
