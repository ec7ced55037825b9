"""Rates of rows over seeds and utterances, and whether rows differ.

Two things were drawn by chance: the utterances that are scored, and the seeds that were trained. The bootstrap draws
both anew, each by itself (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007): utterances as in Bisani
and Ney 2004, the same for all that are compared; seeds for each row by itself, but together where both rows
decode with the same models or train on from them. Three seeds drawn from three vary too little, by (S - 1) / S, so
their deviations are stretched by sqrt(S / (S - 1)) (Rao and Wu, "Resampling inference with complex survey data", JASA
1988). With one seed the intervals tell of the utterances alone.

Shapes: N utterances, S seeds, B resamples.
"""

from __future__ import annotations

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
    """A rate or a difference of rates, as fractions, and the middle 95 % of the resamples."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """A row's rate less that of another, and the p-value of there being none."""

    estimate: Estimate
    p: float


def rate(seeds: Sequence[Errors]) -> Estimate:
    """The mean over seeds, of a row whose runs scored the same utterances."""
    errors_NS, said_N = _counts(seeds)
    sums = resample(np.concatenate([errors_NS, said_N[:, None]], axis=1), RESAMPLES)
    drawn_B = _mean(sums[:, :-1], sums[:, -1], _draw_seeds(len(seeds), 0))
    return Estimate(float(errors_NS.sum() / len(seeds) / max(1, said_N.sum())), *_middle(drawn_B))


def difference(row: Sequence[Errors], other: Sequence[Errors], *, paired: bool) -> Difference:
    """How much higher a row's rate is than the other's.

    paired: the seeds of both are drawn together, as they share their models.
    p is twice the smaller share of resamples in which the difference is not of one sign, as in `asr.scoring`.
    Raises DataError if they are not of the same utterances.
    """
    errors_NS, said_N = _counts(row)
    others_NS, others_said_N = _counts(other)
    if not np.array_equal(said_N, others_said_N):
        raise DataError("rows were scored on other utterances; --again ROW makes their results anew")
    sums = resample(np.concatenate([errors_NS, others_NS, said_N[:, None]], axis=1), RESAMPLES)
    count = errors_NS.shape[1]
    together = paired and count == others_NS.shape[1]
    weights = _draw_seeds(count, 0), _draw_seeds(others_NS.shape[1], 0 if together else 1)
    drawn_B: Values = _mean(sums[:, :count], sums[:, -1], weights[0])
    drawn_B = drawn_B - _mean(sums[:, count:-1], sums[:, -1], weights[1])
    value = float(errors_NS.sum() / count - others_NS.sum() / others_NS.shape[1]) / max(1, int(said_N.sum()))
    tail = min(int((drawn_B <= 0).sum()), int((drawn_B >= 0).sum()))
    return Difference(Estimate(value, *_middle(drawn_B)), min(1.0, 2 * (tail + 1) / (RESAMPLES + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values that hold for all of these comparisons together (Holm 1979)."""
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


def _draw_seeds(count: int, stream: int) -> Values:
    """How much each seed counts (B, S) in each resample."""
    drawn = np.random.default_rng([_SEED, stream]).multinomial(count, [1 / count] * count, size=RESAMPLES)
    return 1 + (drawn - 1) * (count / max(1, count - 1)) ** 0.5


def _mean(errors_BS: Counts, said_B: Counts, weight_BS: Values) -> Values:
    return np.asarray((errors_BS * weight_BS).mean(1) / np.maximum(1, said_B))


def _middle(values: Values) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
