"""Warn if WER, BLEU or TER compare whole sentences, as they do in Chinese, Japanese or Thai without word spaces."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence

import regex

from asr.scoring.pairs import Pair
from asr.scoring.rates import Counted, spelled
from asr.scoring.translation import TranslationScore
from asr.text.scripts import HAN_OR_KANA, SOUTH_EAST_ASIAN

_LOOKED_AT = 100  # references examined of each portion
_LONGEST_WORD = 3.0  # mean length in characters; segmented Chinese words have fewer than two on average
# About two letters of these alphabets carry as much as one Chinese character.
_WEIGHTS = ((regex.compile(HAN_OR_KANA), 1.0), (regex.compile(SOUTH_EAST_ASIAN), 0.5))


class Unspaced:
    """Detects references that are written without spaces between words."""

    def __init__(self) -> None:
        self._length = 0.0
        self._words = self._others = 0

    def look_at(self, pairs: Sequence[Pair]) -> None:
        """Examine the first references of a portion."""
        for pair in pairs[:_LOOKED_AT]:
            words = pair.reference.split()
            if pair.reference.isascii():
                self._others += len(words)
                continue
            for word in words:
                length = sum(weight * len(pattern.findall(word)) for pattern, weight in _WEIGHTS)
                self._length += length
                self._words += length > 0
                self._others += length == 0

    def warn(self, units: Collection[Counted], translation: Mapping[str, TranslationScore]) -> None:
        """Warn if words that spaces separate are counted in references without word spaces."""
        if self._length <= max(self._others, _LONGEST_WORD * self._words):
            return
        told = "the references have no spaces between words (as Chinese, Japanese and Thai are written), so"
        if "word" in units:
            mend = "look at CER, or at the mixed rate: asr score --metric cer,mixed"
            warnings.warn(f"{told} WER compares whole sentences; {mend}", stacklevel=2)
        for name in (name for name, score in translation.items() if score.spaced):
            mend = "give their language if they have none (--language zh), or look at chrF or CER"
            warnings.warn(f"{told} {spelled(name)} compares whole sentences; {mend}", stacklevel=2)
