"""Scores on dev: error rates of transcriptions, BLEU and chrF of translations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from asr.config import Measure
from asr.scoring import MORE_IS_BETTER, ScoreOptions, ScoreReport, metrics_of, points, score_sources
from asr.scoring.recognised import Recognised, sources


def scores_by_task(recognised: Sequence[Recognised], normalizer: str) -> dict[str, ScoreReport]:
    """Score the hypotheses of each task separately."""
    tasks = dict.fromkeys(each.task for each in recognised)
    return {
        task: score_sources(
            *sources([each for each in recognised if each.task == task]),
            ScoreOptions(metrics=metrics_of(task), normalizer=normalizer),
        )
        for task in tasks
    }


def measured(reports: Mapping[str, ScoreReport]) -> dict[str, float]:
    """Return each measure from 0 to 100 with its interval (`_low`, `_high`); for several tasks, only the mean."""
    found: dict[str, list[float]] = {}
    for report in reports.values():
        for name, value in report.values.items():
            found.setdefault(name, []).append(points(name, value))
    means = {name: sum(values) / len(values) for name, values in found.items()}
    for report in reports.values():
        if all(len(found[name]) == 1 for name in report.values):
            for name, (low, high, _) in report.intervals.items():
                means |= {f"{name}_low": points(name, low), f"{name}_high": points(name, high)}
    return means


def badness(measure: Measure, value: float) -> float:
    """Return a number that is lower for a better value; values that are not finite are the worst."""
    if not math.isfinite(value):
        return math.inf
    return -value if measure in MORE_IS_BETTER else value
