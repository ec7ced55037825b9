"""Rates over parts of the utterances, with their confidence intervals."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from asr.metrics import Counts
from asr.scoring.breakdown import Groups
from asr.scoring.rates import in_blocks, share
from asr.scoring.significance import Interval, interval


class Sparse:
    """A few small integers for each of the utterances that have any, by utterance number."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._numbers, self._values = array("q"), array("q")

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, number: int, values: Sequence[int]) -> None:
        self._numbers.append(number)
        self._values.extend(values)

    def put(self, into_NK: Counts) -> Counts:
        """Overwrite the rows of an array [utterances, width] with the stored ones, and return it."""
        into_NK[np.array(self._numbers, dtype=np.int64)] = np.array(self._values, dtype=np.int64).reshape(
            -1, self.width
        )
        return into_NK


class Share:
    """A part as a share of a whole, with its 95 % interval; rows [utterances, 2] hold part and whole."""

    def __init__(self, rows_N2: Counts, groups: Groups | None) -> None:
        self._rows_N2, self._groups = rows_N2, groups
        self.part, self.whole = rows_N2.sum(0).tolist()
        self.rate = float(share(rows_N2.sum(0)))

    def interval(self) -> Interval:
        return interval(in_blocks(self._rows_N2, self._groups.of_utterance if self._groups else None), share)

    def as_dict(self, part: str, whole: str) -> dict[str, Any]:
        low, high, _ = self.interval()
        return {"rate": self.rate, "interval_95": [low, high], part: self.part, whole: self.whole}

    def row(self) -> str:
        """Return rate and interval in per cent, part and whole, as columns of a table."""
        low, high = (100 * end for end in self.interval()[:2])
        return f" {100 * self.rate:9.2f} {f'{low:.2f} to {high:.2f}':>17} {self.part:9} {self.whole:9}"
