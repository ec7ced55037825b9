"""The result of scoring one system: as JSON values and as plain-text tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from asr.errors import printable
from asr.metrics import Counts, ErrorRate, Unit, align, show_alignment
from asr.scoring import breakdown
from asr.scoring.breakdown import Confusions, Groups, GroupScores
from asr.scoring.findings import Finding
from asr.scoring.rates import MEASURES, Counted, in_blocks, spelled
from asr.scoring.rows import Form
from asr.scoring.significance import Interval, Rate, interval
from asr.scoring.tally import Places, Utterance
from asr.scoring.tcwer import COLLAR_S
from asr.scoring.translation import RESAMPLES, TranslationScore

_READ = {"lines": ", a text a line", "ids": ", read as id and text"}


@dataclass(frozen=True)
class ScoreReport:
    """The result of scoring one system.

    counts: by unit, [utterances, 4] in the order of the references.  groups: the blocks that the bootstrap draws; None:
    it draws single utterances.
    """

    metrics: tuple[str, ...]
    counts: dict[Counted, Counts]
    normalizer: str
    language: str | None = None
    form: Form | None = None  # how the reference file was read; None for texts in memory
    name: str = "the hypotheses"
    utterances: int = 0
    translation: dict[str, TranslationScore] = field(default_factory=dict)
    groups: Groups | None = None
    places: Places | None = None
    worst_utterances: tuple[Utterance, ...] = ()
    breakdowns: tuple[Groups, ...] = ()
    confusions: Confusions | None = None
    most_confusions: int = 0
    findings: tuple[Finding, ...] = ()
    collar_s: float = COLLAR_S
    references: int = 0  # a hash of the normalised references

    @cached_property
    def totals(self) -> dict[Counted, Counts]:
        return {unit: rows.sum(0) for unit, rows in self.counts.items()}

    @cached_property
    def rates(self) -> dict[str, ErrorRate]:
        """Total counts of every metric that is an error rate."""
        return {n: ErrorRate(*self.totals[MEASURES[n].unit].tolist()) for n in self.metrics if n in MEASURES}

    @cached_property
    def values(self) -> dict[str, float]:
        """The value of every metric: rates as fractions, BLEU, chrF and TER from 0 to 100."""
        found = {n: float(MEASURES[n].of(self.totals[MEASURES[n].unit])) for n in self.metrics if n in MEASURES}
        return found | {n: score.value for n, score in self.translation.items()}

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """The 95 % interval of every metric."""
        return {n: interval(*self.drawn(n)) for n in (*self.rates, *self.translation)}

    def drawn(self, metric: str) -> tuple[Counts, Rate, int | None]:
        """Return the bootstrap's input: a row of sums for each block, the metric as a function of it, the resamples.

        The number of resamples is None if it depends on the rows.
        """
        rows: Counts
        rate: Rate
        if score := self.translation.get(metric):
            rows, rate, resamples = score.counts_NK, score.ratio, RESAMPLES
        else:
            measure = MEASURES[metric]
            rows, rate, resamples = self.counts[measure.unit] @ measure.parts, measure.ratio, None
        return in_blocks(rows, self.groups.of_utterance if self.groups else None), rate, resamples

    def bootstrap(self) -> str:
        """Describe how the intervals were computed."""
        drawn = f"{self.groups.field} ({len(self.groups.names):,})" if self.groups else "utterance"
        many = [f"{min(self.intervals[n].resamples for n in self.rates):,} resamples"] if self.rates else []
        if self.translation:
            many.append(f"{RESAMPLES:,} resamples of {', '.join(spelled(n) for n in self.translation)}")
        collar = f"; tcWER: collar {self.collar_s:g} s" if "tcwer" in self.rates else ""
        return f"95 % intervals: bootstrap by {drawn}, {' and '.join(many)}{collar}"

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values; rates are fractions."""
        rows: dict[str, dict[str, Any]] = {}
        for n in self.metrics:
            low, high, resamples = self.intervals[n]
            drawn = {"interval_95": [low, high], "resamples": resamples}
            if n in self.translation:
                rows[n] = {"score": self.values[n], **drawn, "signature": self.translation[n].signature}
                continue
            r = self.rates[n]
            counts = {
                c: getattr(r, c) for c in ("substitutions", "deletions", "insertions", "hits", "reference_length")
            }
            rows[n] = {"rate": self.values[n], **drawn, **counts}
            if n == "tcwer":
                rows[n]["collar_s"] = self.collar_s
        by = self.groups.field if self.groups else "utterance"
        made = {"normalizer": self.normalizer, "language": self.language, "form": self.form, "bootstrap_by": by}
        details: dict[str, Any] = {}
        if self.breakdowns:
            details["breakdown"] = {
                groups.field: [group.as_dict() for group in self.by_group(groups)] for groups in self.breakdowns
            }
        if self.confusions:
            details["confusions"] = self.confusions.as_dict(self.most_confusions)
        details |= {finding.name: finding.as_dict() for finding in self.findings}
        return {"utterances": self.utterances, **made, "metrics": rows, **details}

    def by_group(self, groups: Groups) -> list[GroupScores]:
        """Return every metric of each group."""
        counts = {name: self.counts[MEASURES[name].unit] for name in self.rates}
        return breakdown.scores(groups, counts, self.translation)

    def heading(self) -> str:
        return f"{self.utterances} utterances{_READ.get(self.form or '', '')}, normalizer {self.normalizer}"

    def table(self) -> str:
        """Return the result as plain text; below each count stands its percentage of the reference length."""
        rows = [self.heading()]
        width = max([4, *map(len, self.metrics)])
        if self.rates:
            columns = "".join(f"{name:>10}" for name in ("sub", "del", "ins", "hits"))
            rows.append(f"{'':{width}}{'rate %':>10}{'95 % interval':>18}{columns}{'reference':>11}")
        for name, r in self.rates.items():
            counts = (r.substitutions, r.deletions, r.insertions, r.hits)
            shares = (100 * count / max(1, r.reference_length) for count in counts)
            low, high = (100 * end for end in self.intervals[name][:2])
            start = f"{spelled(name):{width}} {100 * self.values[name]:9.2f} {f'{low:.2f} to {high:.2f}':>17}"
            rows.append(f"{start}{''.join(f' {c:9}' for c in counts)} {r.reference_length:10}")
            if name in ("wer", "cer", "mixed", "tcwer"):
                rows.append(f"{'':{width + 28}}{''.join(f' {share:8.2f}%' for share in shares)}")
        for name, score in self.translation.items():
            low, high = self.intervals[name][:2]
            rows.append(
                f"{spelled(name):{width}} {score.value:9.2f} {f'{low:.2f} to {high:.2f}':>17}  {score.signature}"
            )
        rows.append(self.bootstrap())
        return "\n".join([*rows, *self.details()])

    def details(self) -> Iterator[str]:
        """Yield the requested breakdowns, confusions and findings as plain text."""
        for groups in self.breakdowns:
            yield f"\n{breakdown.table(groups.field, self.by_group(groups))}"
        if self.confusions:
            yield f"\n{self.confusions.table(self.most_confusions)}"
        for finding in self.findings:
            yield f"\n{finding.table()}"

    def worst(self, count: int = 5, *, width: int = 100) -> str:
        """Return alignments of the utterances with most errors by the first rate; those without errors are left out."""
        if not self.rates:
            return ""
        first = MEASURES[next(iter(self.rates))].unit
        unit: Unit = "word" if first == "timed word" else first
        gap = "" if unit == "character" else " "
        blocks = []
        for u in self.worst_utterances[:count]:
            head = f"{printable(u.id)}: {unit} errors {u.errors}, reference {sum(u.counts[:3])}"
            edits = align(u.reference, u.hypothesis, unit)
            blocks.append(f"{head}\n{show_alignment(edits, width=width, gap=gap)}")
        return "\n\n".join(blocks)
