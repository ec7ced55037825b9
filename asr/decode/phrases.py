"""A phrase list ('hotwords') as a scorer: shallow fusion (Zhao et al. 2019) with an automaton over tokens.

Shapes: N hypotheses, L tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from asr.decode.search import Rise
from asr.phrases.automaton import Transitions
from asr.phrases.lists import Phrase
from asr.phrases.paths import OPEN, Paths
from asr.phrases.spelling import Speller


class PhraseScorer:
    """Gives a bonus to every token that continues a phrase, and takes it back if the phrase is left before its end.

    A phrase matches only from the start of a word to the end of a word, in the spellings of the speller.  Of
    overlapping matches the leftmost and then the longest counts.  So in a finished text every token of a phrase gains
    the phrase's weight; the weight of the scorer is the bonus in nats.  Phrases that the vocabulary cannot write are
    left out with a warning; raises ConfigError if no other is left.  rise: see asr.decode.search.Weighted.
    """

    def __init__(self, phrases: Iterable[Phrase], speller: Speller) -> None:
        automaton = speller.automaton(phrases)
        self._table, self.rise = automaton.transitions(), Rise(*automaton.most())

    @property
    def paths(self) -> Paths:
        """The paths of the list, for uses other than scoring."""
        return self._table.paths

    def start(self, memory: Any) -> Tensor | None:
        return None

    def step(self, tokens_NL: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        table = self._on(tokens_NL.device)
        if state is None:  # no phrase begins in the start tokens, which come first
            state, tokens_NL = tokens_NL.new_full((len(tokens_NL),), OPEN), tokens_NL[:, :0]
        for tokens_N in tokens_NL.unbind(1):
            state = torch.where(tokens_N < 0, state, table.paths.follow(tokens_N, state))
        return table.gains(state), state

    def reorder(self, state: Tensor | None, index_N: Tensor) -> Tensor | None:
        return None if state is None else state[index_N]

    def _on(self, device: torch.device) -> Transitions:
        if self._table.gain_E.device != device:
            self._table = self._table.to(device)
        return self._table
