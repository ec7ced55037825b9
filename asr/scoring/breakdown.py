"""Where the errors are: which words are confused, and in which groups of utterances."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from asr.errors import printable
from asr.metrics import Counts, Kind, Unit, WordError
from asr.scoring.rates import MEASURES, in_blocks, points, spelled
from asr.scoring.translation import TranslationScore

_LENGTHS = (1, 6, 11, 21, 41)  # lower bounds of the length groups, in words or characters
_MOST_VALUES = 12  # a numeric field with more distinct values is divided into quartiles
MOST_ROWS = 20
_MOST_KEPT = 500_000
_NUMBER = re.compile(r"[-+]?[0-9]*\.?[0-9]+")  # float() also takes "103_1240" and "3e1", which may be speakers
_HEADS: dict[Kind, str] = {"substitute": "substituted", "delete": "deleted", "insert": "inserted"}


@dataclass(frozen=True)
class Groups:
    """A field of the references, its values, and the value of each utterance.

    of_utterance: for each utterance an index into `names`.  ordered: the values have an order that tables keep.
    """

    field: str
    names: tuple[str, ...]
    of_utterance: npt.NDArray[np.integer[Any]]
    ordered: bool = False


class Confusions:
    """How often each word was recognised as which other; beyond 500,000 distinct errors those seen once are dropped."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[Kind, str, str]] = Counter()

    def add(self, errors: Sequence[WordError]) -> None:
        self._seen.update((e.kind, e.reference, e.hypothesis) for e in errors)
        if len(self._seen) > _MOST_KEPT:
            self._seen = Counter({error: count for error, count in self._seen.items() if count > 1})

    def most_common(self, kind: Kind, count: int) -> list[tuple[str, str, int]]:
        """Return reference word, hypothesis word and count of the most frequent errors; ties in alphabetical order."""
        found = [(ref, hyp, times) for (k, ref, hyp), times in self._seen.items() if k == kind]
        return sorted(found, key=lambda row: (-row[2], row[:2]))[:count]

    def as_dict(self, count: int) -> dict[str, list[dict[str, Any]]]:
        """Return the most frequent errors of each kind as JSON values."""
        return {
            head: [{"reference": r, "hypothesis": h, "times": n} for r, h, n in self.most_common(kind, count)]
            for kind, head in _HEADS.items()
        }

    def table(self, count: int) -> str:
        """Return the most frequent errors as text, one line for each kind."""
        rows = []
        for kind, head in _HEADS.items():
            found = [f"{' > '.join(filter(None, (r, h)))} ({n})" for r, h, n in self.most_common(kind, count)]
            rows.append(printable(f"{head}: {', '.join(found) or 'none'}"))
        return "\n".join(rows)


def by_length(counts: Counts, unit: Unit = "word") -> Groups:
    """Group utterances by the number of words, or characters, in the reference."""
    ends = [*(start - 1 for start in _LENGTHS[1:]), None]
    spans = (f"{s}-{e} {unit}s" if e else f"{s} {unit}s or more" for s, e in zip(_LENGTHS, ends, strict=True))
    names = [f"0 {unit}s", *spans]
    return _used(Groups("length", tuple(names), np.digitize(counts[:, :3].sum(1), _LENGTHS), ordered=True))


def in_quarters(groups: Groups) -> Groups:
    """Regroup a field with many distinct numbers (durations, for instance) by quartile; return other fields unchanged.

    Values that all consist of digits only are taken for names, such as speaker numbers.
    """
    if all(name.isdigit() for name in groups.names) or not all(map(_NUMBER.fullmatch, groups.names)):
        return groups
    values = np.array([float(name) for name in groups.names])
    if len(values) <= _MOST_VALUES or not np.isfinite(values).all():
        return groups
    of_utterance = values[groups.of_utterance]
    ends = np.quantile(of_utterance, [0, 0.25, 0.5, 0.75, 1])
    names = tuple(f"{low:.4g} to {high:.4g}" for low, high in zip(ends[:-1], ends[1:], strict=True))
    return _used(Groups(groups.field, names, np.searchsorted(ends[1:-1], of_utterance, side="right"), ordered=True))


class GroupScores(NamedTuple):
    """The scores of one group.

    length: of the references, in the unit of the first rate; None if there is no rate.  values: rates and translation
    scores by metric name.
    """

    name: str
    utterances: int
    length: int | None
    values: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return the scores as JSON values."""
        return {"name": self.name, "utterances": self.utterances, "reference_length": self.length, **self.values}


def scores(
    groups: Groups, counts: Mapping[str, Counts], translation: Mapping[str, TranslationScore] = MappingProxyType({})
) -> list[GroupScores]:
    """Return the rates and scores of each group, largest group first unless the groups are ordered.

    counts: by rate, the counts [utterances, 4] that it is computed from.
    """
    times = np.bincount(groups.of_utterance)
    sums = {name: in_blocks(rows, groups.of_utterance) for name, rows in counts.items()}
    lengths = next((rows[:, :3].sum(1) for rows in sums.values()), None)
    values = {name: MEASURES[name].of(rows) for name, rows in sums.items()}
    values |= {
        name: score.ratio(in_blocks(score.counts_NK, groups.of_utterance)) for name, score in translation.items()
    }
    size = times if lengths is None else lengths
    return [
        GroupScores(
            groups.names[i],
            int(times[i]),
            None if lengths is None else int(lengths[i]),
            {name: float(of_groups[i]) for name, of_groups in values.items()},
        )
        for i in (range(len(size)) if groups.ordered else np.argsort(-size, kind="stable").tolist())
    ]


def table(field: str, found: Sequence[GroupScores]) -> str:
    """Format the scores of the groups as a plain-text table."""
    width = max(len(field), *(len(group.name) for group in found[:MOST_ROWS]))
    first = found[0]
    heads = [f"{'reference':>11}"] if first.length is not None else []
    heads += [f"{f'{spelled(name)} %' if name in MEASURES else spelled(name):>9}" for name in first.values]
    shown = [f"{field:{width}}{'utterances':>12}{''.join(heads)}"]
    for name, utterances, length, values in found[:MOST_ROWS]:
        cells = [f" {length:10}"] if length is not None else []
        cells += [f" {points(measure, value):8.2f}" for measure, value in values.items()]
        shown.append(f"{printable(name):{width}}{utterances:12}{''.join(cells)}")
    if len(found) > MOST_ROWS:
        shown.append(f"and {len(found) - MOST_ROWS} more")
    return "\n".join(shown)


def _used(groups: Groups) -> Groups:
    """Drop groups without utterances."""
    used, of_utterance = np.unique(groups.of_utterance, return_inverse=True)
    return Groups(groups.field, tuple(groups.names[i] for i in used), of_utterance, groups.ordered)
