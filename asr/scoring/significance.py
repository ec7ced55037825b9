"""Confidence intervals of a rate and tests of whether two systems differ: the bootstrap, and matched pairs.

N: blocks that are drawn as a whole (utterances or speakers), K: counts of each block, B: resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from asr.scoring.rates import Sums, Values
from asr.scoring.tally import Places

# Resampling is fast if many utterances have the same counts; the more distinct counts, the fewer resamples.
_RESAMPLES, _FEWEST_RESAMPLES, _DRAWS = 10_000, 1_000, 10_000_000
_SEED = 20040517
_WEIGHTS_AT_ONCE = 4_000_000
_GOOD_WORDS = 2  # correct words that separate two segments: Gillick and Cox, and the default of sc_stats

Rows = Sums
Rate = Callable[[Rows], Values]


class Interval(NamedTuple):
    """A 95 % percentile interval over this number of resamples."""

    low: float
    high: float
    resamples: int


class Difference(NamedTuple):
    """The second system's rate minus the first one's on the whole corpus, its interval and the p-value."""

    value: float
    interval: Interval
    p: float


class MatchedPairs(NamedTuple):
    """The number of segments with an error, their mean difference in errors (first minus second), z and two-sided p.

    z: None if all differences are equal.
    """

    segments: int
    mean: float
    z: float | None
    p: float


def resample(rows_NK: Rows, resamples: int | None = None) -> Rows:
    """Return the sums [B, K] of N rows drawn with replacement, B times.

    The number of times each row is drawn follows a multinomial distribution. Rows with equal counts are
    interchangeable, so they are drawn together: a million utterances have only a few thousand distinct counts.
    By default B is 10,000, and falls to 1,000 as the number of distinct rows grows beyond 1,000.
    """
    different_UK, times_U = _unique(rows_NK)
    resamples = resamples or max(_FEWEST_RESAMPLES, min(_RESAMPLES, _DRAWS // len(different_UK)))
    generator = np.random.default_rng(_SEED)
    share_U = times_U / times_U.sum()
    at_once = max(1, _WEIGHTS_AT_ONCE // len(share_U))
    parts = [
        generator.multinomial(len(rows_NK), share_U, size=min(at_once, resamples - start)) @ different_UK
        for start in range(0, resamples, at_once)
    ]
    return np.concatenate(parts)


def interval(rows_NK: Rows, rate: Rate, resamples: int | None = None) -> Interval:
    """Return the bootstrap's 95 % percentile interval of a rate of summed counts.

    Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004.
    """
    return _middle(rate(resample(rows_NK, resamples)))


def paired_bootstrap(first_NK: Rows, second_NK: Rows, rate: Rate, resamples: int | None = None) -> Difference:
    """Compare both systems on the same resamples (Bisani and Ney 2004).

    p is twice the smaller of two shares of resamples: those with a difference <= 0 and those with one >= 0. The corpus
    itself counts as one more resample in both, so p is never 0, and 1 for identical systems.  A few blocks cannot be
    strong evidence, however their resamples fall: p is at least that of a sign test in which every block where the
    systems differ favours the same one.
    """
    sums = resample(np.concatenate([first_NK, second_NK], axis=1), resamples)
    width = first_NK.shape[1]
    differences = rate(sums[:, width:]) - rate(sums[:, :width])
    value = float(rate(second_NK.sum(0)) - rate(first_NK.sum(0)))
    tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    least = 2 * 0.5 ** int((first_NK != second_NK).any(1).sum())
    return Difference(value, _middle(differences), min(1.0, max(least, 2 * (tail + 1) / (len(sums) + 1))))


def matched_pairs(first: Places, second: Places) -> MatchedPairs:
    """Run the matched-pairs sentence-segment word error test, MAPSSWE.

    Gillick and Cox, "Some statistical issues in the comparison of speech recognition algorithms", ICASSP 1989. A
    segment ends with its utterance, or where both systems have two words in a row right; segments in which neither
    system has an error are not counted. The mean difference is tested against the normal distribution, two-sided; if
    all differences are equal, so that their deviation is 0, p is that of the sign test.
    """
    utterances = np.concatenate([first.utterances, second.utterances])
    slots = np.concatenate([first.slots, second.slots])
    sign = np.repeat([1, -1], [len(first.slots), len(second.slots)])
    order = np.lexsort((slots, utterances))
    utterances, slots, sign = utterances[order], slots[order], sign[order]
    # Correct reference words between consecutive errors: slot 2i lies before word i, slot 2i + 1 on it.
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
    """Return the distinct rows and their counts; rows are encoded as single integers, which sort faster."""
    widths = [int(most) + 1 for most in rows_NK.max(0)]
    if math.prod(widths) >= 2**62:
        return np.unique(rows_NK, axis=0, return_counts=True)
    key_N = np.ravel_multi_index(tuple(rows_NK.T), widths)
    different, times = np.unique(key_N, return_counts=True)
    return np.stack(np.unravel_index(different, widths), axis=1).astype(np.int64), times
