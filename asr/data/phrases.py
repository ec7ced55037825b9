"""Phrase lists to train a pointer with: most of an utterance's own rare words among those of others (distractors)."""

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
    """Draws the phrase list of each utterance (Sun et al. 2021); a draw depends only on seed, epoch and utterance.

    A word is rare if it occurs less than `rare_below` times in the training texts, ignoring case.  Each rare word of an
    utterance is kept with probability `keep`, so that the model learns to do without; distractors come from all rare
    words of the training texts.  Raises ConfigError if these have none.
    """

    def __init__(self, config: PhraseListConfig, seed: int, texts: Iterable[str], tokenizer: Tokenizer) -> None:
        self.config, self.seed, self.speller = config, seed, Speller(tokenizer)
        words = [word for text in texts for word in _WORD.findall(text)]
        self.counts = Counter(word.lower() for word in words)
        first = {word.lower(): word for word in reversed(words)}  # in the spelling of its first occurrence
        self.rare = sorted(word for word in first.values() if self._is_rare(word))
        if not self.rare:
            raise ConfigError(f"data.phrases: no word of the training texts occurs less than {config.rare_below} times")

    def _is_rare(self, word: str) -> bool:
        return self.counts[word.lower()] < self.config.rare_below and bool(self.speller.written(word))

    def __call__(self, text: str, id: str, epoch: int) -> Paths:
        """Draw the list of an utterance as paths of tokens."""
        return self.speller.automaton(Phrase(word) for word in self.drawn(text, id, epoch)).paths()

    def drawn(self, text: str, id: str, epoch: int) -> list[str]:
        """Draw the words of an utterance's list: its own, then distractors."""
        draw = derived_random(self.seed, epoch, id, "phrases")
        own = [word for word in dict.fromkeys(_WORD.findall(text)) if self._is_rare(word)]
        kept = [word for word in own if draw.random() < self.config.keep]
        said, count = {word.lower() for word in own}, draw.randint(*self.config.distractors)
        others = draw.sample(self.rare, min(len(self.rare), count + len(said)))
        return kept + [word for word in others if word.lower() not in said][:count]


def lists_of(config: ExperimentConfig, tokenizer: Tokenizer) -> ListOf:
    """Return the function that gives each utterance of an experiment its phrase list."""
    if config.data.phrases is None:
        return no_list
    return RareWords(config.data.phrases, config.seed, vocabulary_texts(config), tokenizer)
