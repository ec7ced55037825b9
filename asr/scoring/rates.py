"""Measures computed from alignment counts, vectorised over arrays of them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from asr.errors import ConfigError
from asr.metrics import Counts, Unit

Counted = Unit | Literal["timed word"]
Values = npt.NDArray[np.float64]
Sums = npt.NDArray[np.integer[Any]]


class Measure(NamedTuple):
    """A measure as a function of two or three sums.

    parts: [4, K], the sums' weights of hits, substitutions, deletions, insertions.  ratio: of sums [..., K].
    """

    unit: Counted
    parts: npt.NDArray[np.int64]
    ratio: Callable[[Sums], Values]

    def of(self, counts: Counts) -> Values:
        """Return the measure for each row of counts [..., 4]."""
        return self.ratio(counts @ self.parts)


_HITS, _ERRORS = [1, 0, 0, 0], [0, 1, 1, 1]
_SAID, _RECOGNISED, _ALL = [1, 1, 1, 0], [1, 1, 0, 1], [1, 1, 1, 1]


def share(sums: Sums) -> Values:
    """Return the first of two sums as a share of the second; if the second is 0, the first itself."""
    return sums[..., 0] / np.maximum(1, sums[..., 1])


def _information_lost(sums: Sums) -> Values:
    hits, said, recognised = np.moveaxis(sums, -1, 0)
    kept = hits / np.maximum(1, said) * (hits / np.maximum(1, recognised))
    return np.where(said + recognised == 0, 0.0, 1 - kept)


def _measure(unit: Counted, ratio: Callable[[Sums], Values], *parts: list[int]) -> Measure:
    return Measure(unit, np.array(parts, dtype=np.int64).T, ratio)


# MER and WIL: Morris, Maier and Green, "From WER and RIL to MER and WIL", Interspeech 2004; empty texts as in jiwer.
MEASURES: dict[str, Measure] = {
    "wer": _measure("word", share, _ERRORS, _SAID),
    "cer": _measure("character", share, _ERRORS, _SAID),
    "mer": _measure("word", share, _ERRORS, _ALL),
    "wil": _measure("word", _information_lost, _HITS, _SAID, _RECOGNISED),
    "mixed": _measure("token", share, _ERRORS, _SAID),
    "tcwer": _measure("timed word", share, _ERRORS, _SAID),
}


def in_blocks(rows_NK: Sums, block_N: Sums | None) -> Sums:
    """Return the sum of the rows of each block; without blocks the rows themselves."""
    if block_N is None:
        return rows_NK
    sums = np.zeros((int(block_N.max()) + 1, rows_NK.shape[1]), dtype=np.int64)
    np.add.at(sums, block_N, rows_NK)
    return sums


def points(name: str, value: float) -> float:
    """Return a value as it is displayed: per cent for error rates, unchanged for translation scores."""
    return 100 * value if name in MEASURES else value


def spelled(name: str) -> str:
    """Return a metric's name as papers spell it."""
    return {"chrf": "chrF", "tcwer": "tcWER"}.get(name, name.upper())


def check_metrics(names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return the names without duplicates; raise ConfigError for an unknown name or an empty list."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ConfigError(f"unknown metric {name!r}; did you mean {near!r}? Known: {', '.join(known)}")
    if not names:
        raise ConfigError(f"no metric to compute; known: {', '.join(known)}")
    return tuple(dict.fromkeys(names))
