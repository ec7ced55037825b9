"""Where it goes wrong: which words, and in which utterances."""

from __future__ import annotations

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

_LENGTHS = (1, 6, 11, 21, 41)  # words or characters at which a longer group begins
_MOST_VALUES = 12  # of a field of numbers, before they are put into quarters
MOST_ROWS = 20
_MOST_KEPT = 500_000
_HEADS: dict[Kind, str] = {"substitute": "substituted", "delete": "deleted", "insert": "inserted"}


@dataclass(frozen=True)
class Groups:
    """A field of the references, its values, and which of them each utterance has.

    ordered: the values stand in an order of their own.
    """

    field: str
    names: tuple[str, ...]
    of_utterance: npt.NDArray[np.integer[Any]]
    ordered: bool = False


class Confusions:
    """How often which word was taken for which; beyond half a million different ones those seen once are forgotten."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[Kind, str, str]] = Counter()

    def add(self, errors: Sequence[WordError]) -> None:
        self._seen.update((e.kind, e.reference, e.hypothesis) for e in errors)
        if len(self._seen) > _MOST_KEPT:
            self._seen = Counter({error: count for error, count in self._seen.items() if count > 1})

    def most_common(self, kind: Kind, count: int) -> list[tuple[str, str, int]]:
        """Word of the reference, of the hypothesis, and how often; the alphabet decides between equals."""
        found = [(ref, hyp, times) for (k, ref, hyp), times in self._seen.items() if k == kind]
        return sorted(found, key=lambda row: (-row[2], row[:2]))[:count]

    def as_dict(self, count: int) -> dict[str, list[dict[str, Any]]]:
        """The most frequent of each kind, as values for JSON."""
        return {
            head: [{"reference": r, "hypothesis": h, "times": n} for r, h, n in self.most_common(kind, count)]
            for kind, head in _HEADS.items()
        }

    def table(self, count: int) -> str:
        """The most frequent of each kind, a line each."""
        rows = []
        for kind, head in _HEADS.items():
            found = [f"{' > '.join(filter(None, (r, h)))} ({n})" for r, h, n in self.most_common(kind, count)]
            rows.append(printable(f"{head}: {', '.join(found) or 'none'}"))
        return "\n".join(rows)


def by_length(counts: Counts, unit: Unit = "word") -> Groups:
    """Utterances by the number of words, or characters, in the reference."""
    ends = [*(start - 1 for start in _LENGTHS[1:]), None]
    spans = (f"{s}-{e} {unit}s" if e else f"{s} {unit}s or more" for s, e in zip(_LENGTHS, ends, strict=True))
    names = [f"0 {unit}s", *spans]
    return _used(Groups("length", tuple(names), np.digitize(counts[:, :3].sum(1), _LENGTHS), ordered=True))


def in_quarters(groups: Groups) -> Groups:
    """Groups by the quartiles of their values where these are many numbers (durations, say); else as they are.

    Digits alone are taken for names, as those of speakers are.
    """
    if all(name.isdigit() for name in groups.names):
        return groups
    try:
        values = np.array([float(name) for name in groups.names])
    except ValueError:
        return groups
    if len(values) <= _MOST_VALUES or not np.isfinite(values).all():
        return groups
    of_utterance = values[groups.of_utterance]
    ends = np.quantile(of_utterance, [0, 0.25, 0.5, 0.75, 1])
    names = tuple(f"{low:.4g} to {high:.4g}" for low, high in zip(ends[:-1], ends[1:], strict=True))
    return _used(Groups(groups.field, names, np.searchsorted(ends[1:-1], of_utterance, side="right"), ordered=True))


class GroupScores(NamedTuple):
    """What one group was scored with.

    length: of the references, in the words or characters of the first rate; None where there is none.  values: rates,
    and scores of translations, by their names.
    """

    name: str
    utterances: int
    length: int | None
    values: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """As values for JSON."""
        return {"name": self.name, "utterances": self.utterances, "reference_length": self.length, **self.values}


def scores(
    groups: Groups, counts: Mapping[str, Counts], translation: Mapping[str, TranslationScore] = MappingProxyType({})
) -> list[GroupScores]:
    """The rates and scores of each group; the largest groups first.

    counts: of the utterances, by the rates that are made of them.
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
    """The scores as plain text."""
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
    """The groups that have an utterance."""
    used, of_utterance = np.unique(groups.of_utterance, return_inverse=True)
    return Groups(groups.field, tuple(groups.names[i] for i in used), of_utterance, groups.ordered)
