"""An ablation's results as rows of numbers, from which the report and its figures are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from asr.ablation.plan import Plan
from asr.ablation.results import Errors, Failed, Job, Outcome, Results, Steps
from asr.ablation.statistics import SIGNIFICANT, Difference, Estimate, difference, holm, rate
from asr.config import BASE, RowConfig

Metric = Literal["wer", "cer"]
METRICS: tuple[Metric, ...] = ("wer", "cer")


@dataclass(frozen=True)
class Contest:
    """A row's dev rate compared with that of the row it is held against.

    shown: significant by itself.  sure: significant with all rows of the table tested together.  With a single seed,
    both are False.
    """

    difference: Difference
    shown: bool
    sure: bool


@dataclass(frozen=True)
class Line:
    """The results of a row on a corpus; the numbers of several seeds are averaged.

    step_s: seconds of a training step, scaled to the session in which base was first timed.
    """

    name: str
    config: RowConfig
    against: str
    outcomes: Sequence[Outcome]
    failures: Sequence[Failed]
    step_s: float | None
    contests: dict[Metric, Contest]

    def rate(self, metric: Metric, split: Literal["dev", "test"]) -> Estimate | None:
        """Return the rate over all finished seeds, None if a run did not score that split."""
        return rate(found) if (found := errors(self.outcomes, metric, split)) else None

    def mean(self, name: str) -> float | None:
        """Return the mean of a number over the seeds, None if a run does not have it."""
        return _mean([getattr(outcome, name) for outcome in self.outcomes])

    def least(self, name: str) -> float | None:
        """Return the least of a number over the seeds, None if there is no run."""
        return min((getattr(outcome, name) for outcome in self.outcomes), default=None)

    def mean_loss(self, name: str) -> float | None:
        """Return the mean of a dev loss over the seeds, None if a run does not have it."""
        return _mean([outcome.dev_losses.get(name) for outcome in self.outcomes])


def _mean(values: Sequence[Any]) -> float | None:
    return None if not values or None in values else sum(values) / len(values)


def lines(plan: Plan, results: Results, corpus: str) -> list[Line]:
    """Return the rows of a corpus that have results or failures, base first."""
    found = []
    differences = {metric: _differences(plan, results, corpus, metric) for metric in METRICS}
    for row in plan.rows(corpus):
        jobs = [Job(corpus, row, seed) for seed in plan.config.seeds]
        outcomes = results.outcomes(corpus, row, plan.config.seeds)
        failures = [failed for job in jobs if (failed := results.failure(job))]
        if not outcomes and not failures:
            continue
        contests = {metric: of_row[row] for metric, of_row in differences.items() if row in of_row}
        against = plan.config.opponent_of(row)
        step_s = _step_s(results.steps(corpus, row), results.steps(corpus, BASE))
        found.append(Line(row, plan.config.rows[row], against, outcomes, failures, step_s, contests))
    return found


def _step_s(own: Steps | None, base: Steps | None) -> float | None:
    if own is None or own.step_s is None or own.base_step_s is None or base is None or base.step_s is None:
        return None
    return own.step_s / own.base_step_s * base.step_s


def errors(outcomes: Sequence[Outcome], metric: Metric, split: Literal["dev", "test"]) -> list[Errors]:
    """Return the counts of each seed; empty if a run did not score that split."""
    splits = [getattr(outcome, split) for outcome in outcomes]
    return [] if None in splits else [getattr(each, metric) for each in splits]


def _differences(plan: Plan, results: Results, corpus: str, metric: Metric) -> dict[str, Contest]:
    found: dict[str, Difference] = {}
    several: dict[str, bool] = {}
    for row in plan.rows(corpus):
        other = plan.config.opponent_of(row)
        mine, theirs = (results.outcomes(corpus, name, plan.config.seeds) for name in (row, other))
        if row == BASE or not mine or not theirs:
            continue
        paired = plan.config.start_of(row) == plan.config.start_of(other) and row != plan.config.start_of(row)
        if paired:  # both use the same models
            shared = {outcome.seed for outcome in mine} & {outcome.seed for outcome in theirs}
            mine, theirs = ([o for o in some if o.seed in shared] for some in (mine, theirs))
        if mine and theirs:
            found[row] = difference(errors(mine, metric, "dev"), errors(theirs, metric, "dev"), paired=paired)
            several[row] = len(mine) > 1 and len(theirs) > 1
    of_all = dict(zip(found, holm([d.p for d in found.values()]), strict=True))
    return {
        row: Contest(d, several[row] and d.p < SIGNIFICANT, several[row] and of_all[row] < SIGNIFICANT)
        for row, d in found.items()
    }
