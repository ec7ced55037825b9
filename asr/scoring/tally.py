"""Count errors while pairs stream by: only a few integers are kept of each utterance, and the worst ones in full."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from asr.errors import DataError
from asr.metrics import Counts, error_counts, word_errors
from asr.scoring.breakdown import Confusions, Groups
from asr.scoring.findings import Finding, Watcher
from asr.scoring.pairs import Pair
from asr.scoring.rates import Counted
from asr.scoring.tcwer import COLLAR_S, constrained_counts, times_of


class Utterance(NamedTuple):
    """One pair after normalisation, as it was compared.  counts: hits, substitutions, deletions, insertions."""

    id: str
    reference: str
    hypothesis: str
    counts: tuple[int, ...]

    @property
    def errors(self) -> int:
        return sum(self.counts[1:])


class Places(NamedTuple):
    """Positions of word errors: the utterance's number, and a slot: 2i for an insertion before word i, else 2i + 1."""

    utterances: npt.NDArray[np.int64]
    slots: npt.NDArray[np.int64]


class Tally:
    """Counts of a corpus; all results are in the order of the references.

    units: what to count; the first one decides which utterances are the worst.  fields: of the references, whose values
    are kept for each utterance.  places: keep the positions of errors.  confusions: receives all word errors.
    watchers: see every pair.  collar_s: of tcWER.

    references: after counting, a hash of all normalised references.
    """

    def __init__(
        self,
        units: Sequence[Counted],
        *,
        worst: int = 0,
        fields: Sequence[str] = (),
        places: bool = False,
        confusions: Confusions | None = None,
        watchers: Sequence[Watcher] = (),
        collar_s: float = COLLAR_S,
    ) -> None:
        self._units, self._most, self._keep_places = units, worst, places
        self._watchers, self._collar_s = watchers, collar_s
        self.confusions = confusions
        self.references = 0
        self._numbers = array("q")
        self._counts: dict[Counted, list[Counts]] = {unit: [] for unit in units}
        self._worst: list[tuple[int, float, int, Utterance]] = []
        self._fields = {field: _Codes(field) for field in fields}
        self._at_utterance, self._at_slot = array("q"), array("q")

    def add(self, pairs: Sequence[Pair]) -> None:
        """Count pairs whose texts are already normalised."""
        counts = {unit: self._count(pairs, unit) for unit in self._units}
        for unit, rows in counts.items():
            self._counts[unit].append(rows)
        self._numbers.extend(p.number for p in pairs)
        self.references += sum(hash((p.number, p.reference)) for p in pairs)
        if self._units and self._most:
            self._keep_worst(pairs, counts[self._units[0]])
        for codes in self._fields.values():
            codes.add(pairs)
        if self._keep_places or self.confusions is not None:
            self._add_errors(pairs)
        for watcher in self._watchers:
            watcher.add(pairs)

    def _count(self, pairs: Sequence[Pair], unit: Counted) -> Counts:
        if unit == "timed word":
            return np.array([_timed_counts(pair, self._collar_s) for pair in pairs], dtype=np.int32).reshape(-1, 4)
        return error_counts([p.reference for p in pairs], [p.hypothesis for p in pairs], unit)

    def _keep_worst(self, pairs: Sequence[Pair], counts: Counts) -> None:
        for pair, row, errors in zip(pairs, counts.tolist(), counts[:, 1:].sum(1).tolist(), strict=True):
            if not errors or (len(self._worst) == self._most and errors < self._worst[0][0]):
                continue
            utterance = Utterance(pair.id, pair.reference, pair.hypothesis, tuple(row))
            entry = errors, errors / max(1, sum(row[:3])), -pair.number, utterance
            push = heapq.heappush if len(self._worst) < self._most else heapq.heappushpop
            push(self._worst, entry)

    def _add_errors(self, pairs: Sequence[Pair]) -> None:
        for pair in pairs:
            if pair.reference == pair.hypothesis:
                continue
            errors = word_errors(pair.reference, pair.hypothesis)
            if self.confusions is not None:
                self.confusions.add(errors)
            if self._keep_places:
                self._at_slot.extend(2 * e.at + (e.kind != "insert") for e in errors)
                self._at_utterance.extend([pair.number] * len(errors))

    @property
    def worst(self) -> tuple[Utterance, ...]:
        """The utterances with most errors, worst first."""
        return tuple(entry[-1] for entry in sorted(self._worst, key=lambda e: e[:3], reverse=True))

    def counts(self) -> dict[Counted, Counts]:
        """Return the counts [utterances, 4] of every unit."""
        order = self._order()
        return {unit: np.concatenate(rows)[order] for unit, rows in self._counts.items()}

    def groups(self, field: str) -> Groups:
        """Return the values of a field, and the value of each utterance."""
        codes = self._fields[field]
        found = np.array(codes.codes)[self._order()]
        # Numbered in the order of the references, not of the hypotheses: comparisons of systems rely on equal numbers.
        used, first, group = np.unique(found, return_index=True, return_inverse=True)
        order = np.argsort(first)
        names = list(codes.names)
        return Groups(field, tuple(names[code] for code in used[order]), np.argsort(order)[group])

    def findings(self, counts: Mapping[Counted, Counts], by: str | None) -> tuple[Finding, ...]:
        """Return the findings of all watchers.  by: the field whose utterances the bootstrap draws as blocks."""
        groups = self.groups(by) if by else None
        found = (watcher.found(counts, groups) for watcher in self._watchers)
        return tuple(finding for finding in found if finding is not None)

    def _order(self) -> npt.NDArray[np.intp]:
        return np.argsort(np.array(self._numbers), kind="stable")

    def places(self) -> Places:
        return Places(np.array(self._at_utterance, dtype=np.int64), np.array(self._at_slot, dtype=np.int64))


def _timed_counts(pair: Pair, collar_s: float) -> tuple[int, int, int, int]:
    refs, hyps = pair.reference.split(), pair.hypothesis.split()
    ref_R2, hyp_H2 = (times_of(words, spoken) for words, spoken in zip((refs, hyps), pair.spoken, strict=True))
    return constrained_counts(refs, ref_R2, hyps, hyp_H2, collar_s)


class _Codes:
    """Numbers the values of a field, and keeps the number of each utterance's value."""

    def __init__(self, field: str) -> None:
        self.field = field
        self.names: dict[str, int] = {}
        self.codes = array("l")

    def add(self, pairs: Sequence[Pair]) -> None:
        self.codes.extend(map(self._code, pairs))

    def _code(self, pair: Pair) -> int:
        value = pair.fields.get(self.field)
        if value is None or value == "" or isinstance(value, dict | list):
            raise DataError(f"utterance {pair.id!r} has no {self.field!r} in the references; there are: {_known(pair)}")
        return self.names.setdefault(str(value), len(self.names))


def _known(pair: Pair) -> str:
    plain = [
        key for key, value in pair.fields.items() if value not in (None, "") and not isinstance(value, dict | list)
    ]
    return ", ".join(plain) or "none"
