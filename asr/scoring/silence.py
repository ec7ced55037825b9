"""Words that were recognised in utterances whose reference is empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asr.metrics import Counts
from asr.scoring.breakdown import Groups
from asr.scoring.pairs import Pair
from asr.scoring.rates import Counted


@dataclass
class Silence:
    """Utterances with an empty reference, and the words that were recognised in them.

    written_in: how many of them have a recognised word.  seconds, timed_words: of those with a known duration.
    """

    utterances: int = 0
    written_in: int = 0
    words: int = 0
    seconds: float = 0.0
    timed_words: int = 0
    name = "without_speech"

    def add(self, pairs: Sequence[Pair]) -> None:
        for pair in pairs:
            if not pair.reference.strip():
                self._add(len(pair.hypothesis.split()), pair.duration_s)

    def _add(self, words: int, duration_s: float | None) -> None:
        self.utterances += 1
        self.written_in += words > 0
        self.words += words
        if duration_s:
            self.seconds += duration_s
            self.timed_words += words

    def found(self, counts: Mapping[Counted, Counts], groups: Groups | None) -> Silence | None:
        return self if self.utterances else None

    @property
    def words_per_hour(self) -> float | None:
        """Words recognised per hour, over the utterances with a known duration."""
        return 3600 * self.timed_words / self.seconds if self.seconds else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "utterances": self.utterances,
            "utterances_with_words": self.written_in,
            "words": self.words,
            "duration_s": round(self.seconds, 3) if self.seconds else None,
            "words_per_hour": self.words_per_hour,
        }

    def table(self) -> str:
        lasting = f" ({self.seconds:.1f} s)" if self.seconds else ""
        rate = f", {self.words_per_hour:,.1f} words an hour" if self.words_per_hour is not None else ""
        where = f"{self.words} words invented, in {self.written_in} of them"
        return f"references without words: {self.utterances}{lasting}; {where}{rate}"
