"""The oracle WER of n-best lists: the WER if the best of the first n texts were always chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from asr.metrics import Counts
from asr.scoring.breakdown import Groups
from asr.scoring.pairs import Pair
from asr.scoring.rates import Counted
from asr.scoring.shares import Share, Sparse

_DEPTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class NBest:
    """Collects the n-best lists of the hypotheses; an utterance without a list counts with its text alone."""

    def __init__(self) -> None:
        self.longest = 1
        self._errors = Sparse(len(_DEPTHS) + 1)  # the last column is for the whole list

    def add(self, pairs: Sequence[Pair]) -> None:
        for pair in pairs:
            if not pair.alternatives:
                continue
            texts = (
                pair.alternatives if pair.alternatives[0] == pair.hypothesis else (pair.hypothesis, *pair.alternatives)
            )
            self.longest = max(self.longest, len(texts))
            words = pair.reference.split()
            best = list(accumulate((Levenshtein.distance(words, text.split()) for text in texts), min))
            self._errors.add(pair.number, [*(best[min(n, len(best)) - 1] for n in _DEPTHS), best[-1]])

    def found(self, counts: Mapping[Counted, Counts], groups: Groups | None) -> Oracle | None:
        if self.longest == 1:
            return None
        alone_N = counts["word"][:, 1:].sum(1, dtype=np.int64)
        errors_ND = self._errors.put(np.repeat(alone_N[:, None], self._errors.width, axis=1))
        words_N = counts["word"][:, :3].sum(1)
        depths = [(n, d) for d, n in enumerate(_DEPTHS) if n < self.longest] + [(self.longest, len(_DEPTHS))]
        rates = {n: Share(np.stack([errors_ND[:, d], words_N], axis=1), groups) for n, d in depths}
        return Oracle(len(self._errors), rates)


@dataclass(frozen=True)
class Oracle:
    """The WER, by n, if the best of the first n texts were always chosen; lists: number of utterances with a list."""

    lists: int
    rates: Mapping[int, Share]
    name = "oracle_wer"

    def as_dict(self) -> dict[str, Any]:
        return {
            "lists": self.lists,
            "of_the_first": [{"n": n, **rate.as_dict("errors", "words")} for n, rate in self.rates.items()],
        }

    def table(self) -> str:
        head = f"{'oracle WER':14}{'rate %':>10}{'95 % interval':>18}{'errors':>10}{'words':>10}"
        return "\n".join([head, *(f"{f'best of {n}':14}{rate.row()}" for n, rate in self.rates.items())])
