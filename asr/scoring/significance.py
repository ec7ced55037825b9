"""How sure a rate is, and whether two systems differ: the bootstrap, and matched pairs of segments.

N: blocks that are drawn together (utterances or speakers), K: their counts, B: resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from asr.scoring.rates import Sums, Values
from asr.scoring.tally import Places

# Draws are cheap where many utterances have the same counts; where they have not, fewer must do.
_RESAMPLES, _FEWEST_RESAMPLES, _DRAWS = 10_000, 1_000, 10_000_000
_SEED = 20040517
_WEIGHTS_AT_ONCE = 4_000_000
_GOOD_WORDS = 2  # what parts two segments: Gillick and Cox, and sc_stats by default

Rows = Sums
Rate = Callable[[Rows], Values]


class Interval(NamedTuple):
    """The middle 95 % of so many resamples."""

    low: float
    high: float
    resamples: int


class Difference(NamedTuple):
    """The second system's rate less the first one's: of the whole corpus, its interval and the p-value."""

    value: float
    interval: Interval
    p: float


class MatchedPairs(NamedTuple):
    """Segments that hold an error, the mean difference of errors in them (first less second), z and two-sided p.

    z: None where all differences are the same.
    """

    segments: int
    mean: float
    z: float | None
    p: float


def resample(rows_NK: Rows, resamples: int | None = None, seed: int = _SEED) -> Rows:
    """Sums [B, K] of N rows drawn with replacement, B times over.

    How often each row is drawn follows a multinomial distribution. Rows with the same counts need not be told
    apart, so one draw for all of them does: a million utterances have a few thousand different counts. Without
    `resamples` it is 10,000, or down to 1,000 for more than 1,000 different rows.
    """
    different_UK, times_U = _unique(rows_NK)
    resamples = resamples or max(_FEWEST_RESAMPLES, min(_RESAMPLES, _DRAWS // len(different_UK)))
    generator = np.random.default_rng(seed)
    share_U = times_U / times_U.sum()
    at_once = max(1, _WEIGHTS_AT_ONCE // len(share_U))
    parts = [
        generator.multinomial(len(rows_NK), share_U, size=min(at_once, resamples - start)) @ different_UK
        for start in range(0, resamples, at_once)
    ]
    return np.concatenate(parts)


def interval(rows_NK: Rows, rate: Rate, resamples: int | None = None) -> Interval:
    """The bootstrap's 95 % interval (percentiles) of a rate of summed counts.

    Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004.
    """
    return _middle(rate(resample(rows_NK, resamples)))


def paired_bootstrap(first_NK: Rows, second_NK: Rows, rate: Rate, resamples: int | None = None) -> Difference:
    """Both systems on the same resamples (Bisani and Ney 2004).

    p is twice the smaller share of resamples in which the difference is not of one sign; with the corpus itself as
    one more of either, so that it is never 0 and identical systems have 1.  Few blocks cannot tell much, however their
    resamples fall: p is at least that of a sign test in which all blocks where the systems differ favour one.
    """
    sums = resample(np.concatenate([first_NK, second_NK], axis=1), resamples)
    width = first_NK.shape[1]
    differences = rate(sums[:, width:]) - rate(sums[:, :width])
    value = float(rate(second_NK.sum(0)) - rate(first_NK.sum(0)))
    tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    least = 2 * 0.5 ** int((first_NK != second_NK).any(1).sum())
    return Difference(value, _middle(differences), min(1.0, max(least, 2 * (tail + 1) / (len(sums) + 1))))


def matched_pairs(first: Places, second: Places) -> MatchedPairs:
    """Matched-pairs sentence-segment word error test, MAPSSWE.

    Gillick and Cox, "Some statistical issues in the comparison of speech recognition algorithms", ICASSP 1989. A
    segment ends with its utterance, or where both systems have two words in a row right; those without an error
    of either system tell nothing and do not count. The mean of the differences is held against the normal
    distribution, two-sided; where all are the same, and so have no deviation, p is that of the sign test.
    """
    utterances = np.concatenate([first.utterances, second.utterances])
    slots = np.concatenate([first.slots, second.slots])
    sign = np.repeat([1, -1], [len(first.slots), len(second.slots)])
    order = np.lexsort((slots, utterances))
    utterances, slots, sign = utterances[order], slots[order], sign[order]
    # Words of the reference between one error and the next: slot 2i stands before word i, 2i + 1 on it.
    between = slots[1:] // 2 - (slots[:-1] + 1) // 2
    begins = (utterances[1:] != utterances[:-1]) | (between >= _GOOD_WORDS)
    segment = np.concatenate([[0], np.cumsum(begins)])[: len(slots)]
    difference = np.bincount(segment, weights=sign)
    count = len(difference)
    mean = float(difference.mean()) if count else 0.0
    if len(set(difference.tolist())) < 2:
        return MatchedPairs(count, mean, None, 2 * 0.5**count if mean else 1.0)
    z = mean / (float(difference.std(ddof=1)) / math.sqrt(count))
    return MatchedPairs(count, mean, z, math.erfc(abs(z) / math.sqrt(2)))


def _middle(values: Values) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(low), float(high), len(values))


def _unique(rows_NK: Rows) -> tuple[Rows, npt.NDArray[np.int64]]:
    """The different rows and how often each is there; by one number for each row, which sorts quickly."""
    widths = [int(most) + 1 for most in rows_NK.max(0)]
    if math.prod(widths) >= 2**62:
        return np.unique(rows_NK, axis=0, return_counts=True)
    key_N = np.ravel_multi_index(tuple(rows_NK.T), widths)
    different, times = np.unique(key_N, return_counts=True)
    return np.stack(np.unravel_index(different, widths), axis=1).astype(np.int64), times
