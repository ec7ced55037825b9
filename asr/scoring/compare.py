"""Several systems scored on the same references: a common table, and tests of whether they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

from asr.errors import DataError
from asr.scoring.rates import points, spelled
from asr.scoring.report import ScoreReport
from asr.scoring.rows import PathLike
from asr.scoring.significance import Difference, MatchedPairs, matched_pairs, paired_bootstrap
from asr.scoring.translation import MORE_IS_BETTER

SIGNIFICANT = 0.05


class Contest(NamedTuple):
    """Two systems compared by one metric; MAPSSWE is defined for word errors only."""

    first: str
    second: str
    metric: str
    difference: Difference
    mapsswe: MatchedPairs | None

    def sentence(self) -> str:
        """Return the difference, its interval and the p-values as a sentence."""
        value, low, high = (points(self.metric, end) for end in (self.difference.value, *self.difference.interval[:2]))
        gain = value if self.metric in MORE_IS_BETTER else -value
        words = [
            f"{self.second} against {self.first}: {spelled(self.metric)} {value:+.2f} points",
            f"(95 % {low:+.2f} to {high:+.2f});",
            f"paired bootstrap: {self._verdict(gain, self.difference.p)}",
        ]
        if self.mapsswe:
            verdict = self._verdict(self.mapsswe.mean, self.mapsswe.p)
            words[-1] += f"; MAPSSWE over {self.mapsswe.segments} segments: {verdict}"
        return " ".join(words)

    def _verdict(self, gain: float, p: float) -> str:
        shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
        if p >= SIGNIFICANT or not gain:
            return f"no difference shown, {shown}"
        return f"{self.second if gain > 0 else self.first} is better, {shown}"


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`: one report for each system."""

    reports: tuple[ScoreReport, ...]

    def contests(self) -> Iterator[Contest]:
        """Yield every pair of systems, compared by every metric."""
        for first, second in combinations(self.reports, 2):
            for metric in first.intervals:
                rows, rate, resamples = first.drawn(metric)
                difference = paired_bootstrap(rows, second.drawn(metric)[0], rate, resamples)
                mapsswe = None
                if metric == "wer" and first.places and second.places:
                    mapsswe = matched_pairs(first.places, second.places)
                yield Contest(first.name, second.name, metric, difference, mapsswe)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values; rates and their differences are fractions, translation scores are not."""
        return {
            "systems": [{"name": report.name, **report.as_dict()} for report in self.reports],
            "contests": [
                {
                    "first": c.first,
                    "second": c.second,
                    "metric": c.metric,
                    "difference": c.difference.value,
                    "interval_95": list(c.difference.interval[:2]),
                    "paired_bootstrap_p": c.difference.p,
                    "mapsswe": c.mapsswe._asdict() if c.mapsswe else None,
                    "in_words": c.sentence(),
                }
                for c in self.contests()
            ],
        }

    def worst(self, count: int = 5) -> str:
        """Return the worst utterances of each system as text."""
        shown = [f"{report.name}\n{worst}" for report in self.reports if (worst := report.worst(count))]
        return "\n\n".join(shown)

    def table(self) -> str:
        """Return the result as text: a line for each system and a sentence for each pair of systems."""
        first = self.reports[0]
        rows = [first.heading()]
        width = max(len(report.name) for report in self.reports)
        heads = {n: f"{spelled(n)} %" if n in first.rates else spelled(n) for n in first.intervals}
        rows.append(" " * width + "".join(f"{head:>9}{'95 % interval':>18}" for head in heads.values()))
        for report in self.reports:
            cells = [report.name.ljust(width)]
            for n, ends in report.intervals.items():
                value, low, high = (points(n, end) for end in (report.values[n], *ends[:2]))
                cells.append(f" {value:8.2f} {f'{low:.2f} to {high:.2f}':>17}")
            rows.append("".join(cells))
        rows += [f"{spelled(n)}: {score.signature}" for n, score in first.translation.items()]
        rows.append(first.bootstrap())
        rows += [contest.sentence() for contest in self.contests()]
        for report in self.reports:
            details = list(report.details())
            rows += [f"\n{report.name}", *details] if details else []
        return "\n".join(rows)


def check_alike(reference: PathLike, reports: Sequence[ScoreReport]) -> None:
    """Raise DataError unless all systems were scored on the same normalised references, tokenized in the same way."""
    first, *others = reports
    if any(other.utterances != first.utterances for other in others):
        raise DataError(f"{reference}: is read differently beside some of these files; compare files of the same kind")
    mend = "as their languages differ; give one language for all with --language"
    for other in others:
        for name, score in first.translation.items():
            if other.translation[name].signature != score.signature:
                told = f"{name} tokenizes its texts differently from those of {first.name}"
                raise DataError(f"{other.name}: {told}, {mend}")
        if other.references != first.references:
            told = f"the references are normalised differently for it and for {first.name}"
            raise DataError(f"{other.name}: {told}, {mend}")
