"""Phrase lists to train a pointer with: an utterance's own rare words, some left out, among those of others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from asr.config import ExperimentConfig, PhraseListConfig
from asr.data.augment import derived_random
from asr.data.corpus import vocabulary_texts
from asr.data.examples import ListOf, no_list
from asr.errors import ConfigError
from asr.phrases.lists import Phrase
from asr.phrases.paths import Paths
from asr.phrases.spelling import Speller
from asr.tokenizer import Tokenizer

_WORD = re.compile(r"\w(?:\S*\w)?")


class RareWords:
    """Draws the list of each utterance (Sun et al. 2021); a draw is a function of seed, epoch and utterance.

    A word is rare if the training texts have it less than `rare_below` times, in whatever letter case.  Each rare word
    of an utterance is kept with probability `keep`, so that the model learns to do without; distractors come from all
    rare words of the training texts.  Raises ConfigError if these have none.
    """

    def __init__(self, config: PhraseListConfig, seed: int, texts: Iterable[str], tokenizer: Tokenizer) -> None:
        self.config, self.seed, self.speller = config, seed, Speller(tokenizer)
        words = [word for text in texts for word in _WORD.findall(text)]
        self.counts = Counter(word.lower() for word in words)
        first = {word.lower(): word for word in reversed(words)}  # as it is written where it comes first
        self.rare = sorted(word for word in first.values() if self._is_rare(word))
        if not self.rare:
            raise ConfigError(f"data.phrases: no word of the training texts occurs less than {config.rare_below} times")

    def _is_rare(self, word: str) -> bool:
        return self.counts[word.lower()] < self.config.rare_below and bool(self.speller.written(word))

    def __call__(self, text: str, id: str, epoch: int) -> Paths:
        """The list as paths."""
        return self.speller.automaton(Phrase(word) for word in self.drawn(text, id, epoch)).paths()

    def drawn(self, text: str, id: str, epoch: int) -> list[str]:
        """The words of the list: the utterance's own, then distractors."""
        draw = derived_random(self.seed, epoch, id, "phrases")
        own = [word for word in dict.fromkeys(_WORD.findall(text)) if self._is_rare(word)]
        kept = [word for word in own if draw.random() < self.config.keep]
        said, count = {word.lower() for word in own}, draw.randint(*self.config.distractors)
        others = draw.sample(self.rare, min(len(self.rare), count + len(said)))
        return kept + [word for word in others if word.lower() not in said][:count]


def lists_of(config: ExperimentConfig, tokenizer: Tokenizer) -> ListOf:
    """What draws the lists of an experiment."""
    if config.data.phrases is None:
        return no_list
    return RareWords(config.data.phrases, config.seed, vocabulary_texts(config), tokenizer)
