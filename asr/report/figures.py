"""Figures at the top of the page: those of `asr score`, and positions of bars and marks in per cent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from asr.metrics import ErrorRate, Unit
from asr.scoring import Comparison, ScoreReport, points
from asr.scoring.breakdown import MOST_ROWS, Groups, GroupScores, scores


class System(NamedTuple):
    """A system, with the letter that stands for it where its name is too long."""

    letter: str
    name: str
    report: ScoreReport


class Scale(NamedTuple):
    """An axis from 0 to `end`, with marks at `ticks`."""

    end: float
    ticks: tuple[float, ...]

    @classmethod
    def up_to(cls, most: float) -> Scale:
        """Return the axis that reaches at least `most`, with at most six ticks at round numbers."""
        most = most if most > 0 else 0.01
        power = 10.0 ** math.floor(math.log10(most / 5))
        step = next(power * factor for factor in (1, 2, 5, 10) if most / (power * factor) <= 5)
        count = math.ceil(most / step - 1e-9)
        return cls(count * step, tuple(number * step for number in range(count + 1)))

    def at(self, value: float) -> float:
        """Return the position of a value in per cent of the axis."""
        return round(100 * value / self.end, 3)


class RateRow(NamedTuple):
    """A system's value of one rate, with its 95 % interval as fractions, and the counts behind it."""

    system: System
    value: float
    low: float
    high: float
    counts: ErrorRate


class Rates(NamedTuple):
    """One rate for all systems."""

    metric: str
    scale: Scale
    rows: list[RateRow]


class Part(NamedTuple):
    """One kind of error as a share of the reference length; start: the sum of the kinds before it."""

    mark: str
    name: str
    start: float
    share: float


class KindsRow(NamedTuple):
    """The kinds of error of one system."""

    system: System
    parts: list[Part]


class Kinds(NamedTuple):
    """The kinds of error of all systems."""

    scale: Scale
    rows: list[KindsRow]


class GroupRow(NamedTuple):
    """The utterances with one value of a field, and a measure of them for every system."""

    name: str
    utterances: int
    length: int
    values: list[float]


@dataclass(frozen=True)
class ByField:
    """A measure by the values of a field, as fractions (translation scores divided by 100); more: values not shown."""

    measure: str
    field: str
    scale: Scale
    rows: list[GroupRow]
    more: int


def systems_of(comparison: Comparison) -> list[System]:
    """Return the systems with a letter each, or with numbers if there are more than 26."""
    reports = comparison.reports
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if len(reports) <= 26 else [str(n + 1) for n in range(len(reports))]
    return [System(letter, report.name, report) for letter, report in zip(letters, reports, strict=False)]


def rates_of(systems: Sequence[System]) -> Iterator[Rates]:
    """Yield every rate with its interval."""
    for metric in systems[0].report.rates:
        rows = []
        for system in systems:
            low, high, _ = system.report.intervals[metric]
            rows.append(RateRow(system, system.report.values[metric], low, high, system.report.rates[metric]))
        yield Rates(metric, Scale.up_to(max(row.high for row in rows)), rows)


def kinds_of(systems: Sequence[System], unit: Unit) -> Kinds:
    """Return substitutions, deletions and insertions of every system as stacked bars."""
    rows = [KindsRow(system, _parts(ErrorRate(*system.report.totals[unit].tolist()))) for system in systems]
    return Kinds(Scale.up_to(max(sum(part.share for part in row.parts) for row in rows)), rows)


def _parts(counts: ErrorRate) -> list[Part]:
    found: list[Part] = []
    for mark, name in (("S", "substitutions"), ("D", "deletions"), ("I", "insertions")):
        share = getattr(counts, name) / max(1, counts.reference_length)
        found.append(Part(mark, name, sum(part.share for part in found), share))
    return found


def by_fields(systems: Sequence[System], fields: Iterable[Groups], unit: Unit, rate: str) -> Iterator[ByField]:
    """Yield, for each field, the error rate in the page's unit and the translation scores by its values."""
    for groups in fields:
        found = [scores(groups, {rate: system.report.counts[unit]}, system.report.translation) for system in systems]
        for measure in found[0][0].values:
            yield _by_field(measure, groups.field, found)


def _by_field(measure: str, field: str, found: Sequence[Sequence[GroupScores]]) -> ByField:
    rows = [
        GroupRow(
            first.name,
            first.utterances,
            first.length or 0,
            [points(measure, group.values[measure]) / 100 for group in (first, *others)],
        )
        for first, *others in list(zip(*found, strict=True))[:MOST_ROWS]
    ]
    scale = Scale.up_to(max(value for row in rows for value in row.values))
    return ByField(measure, field, scale, rows, max(0, len(found[0]) - MOST_ROWS))
