"""Error rates of rows over seeds and utterances, and tests of whether rows differ.

There are two random factors: the utterances that are scored and the seeds of the trainings. Each bootstrap resample
draws the utterances anew, the same ones for all rows that are compared (Bisani and Ney 2004), and averages over the
given seeds, which includes the variation of single utterances between seeds. The seeds themselves are not resampled:
three are too few. How much a whole seed is better or worse is estimated by an analysis of variance with two random
factors, and each resample adds a draw of Student's t with that standard error and the degrees of freedom of the seeds.
Rows that decode with the same models, or train on from them, are compared seed by seed. With one seed, the intervals
cover only the utterances.

Shapes: N utterances, S seeds, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from asr.ablation.results import Errors
from asr.errors import DataError
from asr.scoring.significance import resample

SIGNIFICANT = 0.05
RESAMPLES = 10_000
_SEED = 20070701

Counts = npt.NDArray[np.integer[Any]]
Values = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """A rate or a difference of rates, as a fraction, with the middle 95 % of its resamples."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """A row's rate minus that of another row, and the p-value of no difference."""

    estimate: Estimate
    p: float


def rate(seeds: Sequence[Errors]) -> Estimate:
    """Estimate a row's mean rate over its seeds, all of which scored the same utterances."""
    errors_NS, said_N = _counts(seeds)
    drawn_B = _resampled(errors_NS, np.zeros_like(said_N)[:, None], said_N, [errors_NS])
    found = _estimate(drawn_B, errors_NS, said_N)
    return found._replace(low=max(0.0, found.low))  # with two or three seeds, the interval is wide


def difference(row: Sequence[Errors], other: Sequence[Errors], *, paired: bool) -> Difference:
    """Estimate how much higher a row's rate is than the other's.

    paired: whether both have the same seeds, in the same order, and use the same models.
    p is twice the smaller of the shares of resamples with a difference <= 0 and >= 0, as in `asr.scoring`.
    Raises DataError if they did not score the same utterances.
    """
    errors_NS, said_N = _counts(row)
    others_NS, others_said_N = _counts(other)
    if not np.array_equal(said_N, others_said_N):
        raise DataError("rows were scored on other utterances; --again ROW makes their results anew")
    independent = [errors_NS - others_NS] if paired else [errors_NS, others_NS]
    drawn_B = _resampled(errors_NS, others_NS, said_N, independent)
    tail = min(int((drawn_B <= 0).sum()), int((drawn_B >= 0).sum()))
    differences_N1 = errors_NS.mean(1, keepdims=True) - others_NS.mean(1, keepdims=True)
    return Difference(_estimate(drawn_B, differences_N1, said_N), min(1.0, 2 * (tail + 1) / (RESAMPLES + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for all of these comparisons together (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, p_values[i] * (len(p_values) - rank)))
        adjusted[i] = highest
    return adjusted


def _counts(seeds: Sequence[Errors]) -> tuple[Counts, Counts]:
    if any(each.reference != seeds[0].reference for each in seeds):
        raise DataError("the seeds of a row were scored on other utterances; --again ROW makes its results anew")
    return np.array([each.errors for each in seeds], dtype=np.int64).T, np.array(seeds[0].reference, dtype=np.int64)


def _resampled(errors_NS: Counts, others_NS: Counts, said_N: Counts, independent: Sequence[Counts]) -> Values:
    """Return resamples (B,) of the difference of two rates.  independent: the parts of it with independent seeds."""
    rows = [errors_NS.sum(1), others_NS.sum(1), said_N]
    errors_B, others_B, said_B = resample(np.stack(rows, axis=1), RESAMPLES).T
    drawn_B: Values = (errors_B / errors_NS.shape[1] - others_B / others_NS.shape[1]) / np.maximum(1, said_B)
    freedom = sum(part_NS.shape[1] - 1 for part_NS in independent)
    if freedom:
        error = math.sqrt(sum(seed_variance(part_NS, said_N) / part_NS.shape[1] for part_NS in independent))
        drawn_B = drawn_B + error * np.random.default_rng(_SEED).standard_t(freedom, RESAMPLES)
    return drawn_B


def seed_variance(errors_NS: Counts, said_N: Counts) -> float:
    """Estimate the variance of the seeds' rates beyond the chance variation of single utterances; at least 0."""
    seeds, words = errors_NS.shape[1], int(said_N.sum())
    if seeds < 2 or not words:
        return 0.0
    rate_S = errors_NS.sum(0) / words
    of_both_NS = errors_NS - errors_NS.mean(1, keepdims=True) - said_N[:, None] * (rate_S - rate_S.mean())
    by_chance = (of_both_NS**2).sum() / (seeds - 1) / words**2
    return max(0.0, float(rate_S.var(ddof=1) - by_chance))


def _estimate(drawn_B: Values, errors_NS: npt.NDArray[Any], said_N: Counts) -> Estimate:
    low, high = np.percentile(drawn_B, [2.5, 97.5])
    return Estimate(float(errors_NS.mean(1).sum() / max(1, said_N.sum())), float(low), float(high))
