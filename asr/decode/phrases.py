"""A phrase list ('hotwords') as a scorer: shallow fusion (Zhao et al. 2019) by an automaton over tokens.

Shapes: N hypotheses, L tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from asr.phrases.automaton import Transitions
from asr.phrases.lists import Phrase
from asr.phrases.paths import OPEN, Paths
from asr.phrases.spelling import Speller


class PhraseScorer:
    """A bonus for every token that goes on along a phrase, taken back if the phrase is left before its end.

    A phrase counts from word start to word end, in the spellings that the speller knows.  Where matches overlap, the
    leftmost and then the longest is kept, so the sum over a finished text is the phrase's weight for each token of the
    phrases in it; the weight of the scorer is the bonus in nats.  Raises ConfigError for a phrase that the vocabulary
    cannot write.
    """

    def __init__(self, phrases: Iterable[Phrase], speller: Speller) -> None:
        self._table = speller.automaton(phrases).transitions()

    @property
    def paths(self) -> Paths:
        """Where texts stand in the list, for those who read it otherwise."""
        return self._table.paths

    def start(self, memory: Any) -> Tensor | None:
        return None

    def step(self, tokens_NL: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        table = self._on(tokens_NL.device)
        if state is None:  # the first tokens are start tokens: no phrase begins in them
            state, tokens_NL = tokens_NL.new_full((len(tokens_NL),), OPEN), tokens_NL[:, :0]
        for tokens_N in tokens_NL.unbind(1):
            state = table.paths.follow(tokens_N, state)
        return table.gains(state), state

    def reorder(self, state: Tensor | None, index_N: Tensor) -> Tensor | None:
        return None if state is None else state[index_N]

    def _on(self, device: torch.device) -> Transitions:
        if self._table.gain_E.device != device:
            self._table = self._table.to(device)
        return self._table
