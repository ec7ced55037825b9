"""Scores of listed words and phrases (names, rare words): recall, precision, and WER on and off the list."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asr.errors import AsrError, DataError
from asr.metrics import Counts, word_matches
from asr.scoring.breakdown import Groups
from asr.scoring.pairs import Pair
from asr.scoring.rates import Counted
from asr.scoring.rows import PathLike, lines
from asr.scoring.shares import Share, Sparse
from asr.text import Normalizer

_MOST_SHOWN = 10


class Place(NamedTuple):
    """An occurrence of a list entry in a text: the entry's number, its first word and its length in words."""

    entry: int
    start: int
    length: int

    @property
    def words(self) -> range:
        return range(self.start, self.start + self.length)


class _EntryError(DataError):
    """An entry that the normaliser rejects."""


class Listed:
    """Counts the entries of a list, which are normalised like the texts, in references and hypotheses.

    An entry is right if all its words are aligned as hits that are adjacent on both sides.  Words of the list are the
    reference words that belong to an entry.  As in Le et al., "Contextualized Streaming End-to-End Speech Recognition
    with Trie-Based Deep Biasing and Shallow Fusion", Interspeech 2021, B-WER is their substitutions and deletions, plus
    insertions of listed words, over their number; U-WER is all other errors over all other words.
    """

    def __init__(self, path: PathLike, normalizer: Normalizer, language: str | None) -> None:
        self._path, self._normalizer = path, normalizer
        self._entries = [(number, line.strip()) for number, line in lines(path) if line.strip()]
        if not self._entries:
            raise DataError(f"{path}: no words in the list; write one word or phrase a line")
        self._finder: Callable[[str | None], _Finder] = cache(self._in_language)
        try:
            self._finder(language)  # reports entries that cannot be normalised before anything is read
        except _EntryError:
            if language is not None:  # otherwise only the language may be missing, and utterances may have their own
                raise
        self.said, self.put, self.right = Counter[str](), Counter[str](), Counter[str]()
        self._rows = Sparse(5)

    def _in_language(self, language: str | None) -> _Finder:
        entries: dict[tuple[str, ...], str] = {}
        for number, text in self._entries:
            try:
                words = tuple(self._normalizer.of_language(language)(text).split())
            except AsrError as e:
                raise _EntryError(f"{Path(self._path)}:{number}: {e}") from None
            if not words:
                raise DataError(
                    f"{Path(self._path)}:{number}: normalizer {self._normalizer.name} leaves nothing of {text!r}"
                )
            entries.setdefault(words, text)
        return _Finder(entries)

    def add(self, pairs: Sequence[Pair]) -> None:
        for pair in pairs:
            finder = self._finder(pair.language)
            refs, hyps = pair.reference.split(), pair.hypothesis.split()
            said, put = finder.places(refs), finder.places(hyps)
            if said or put:
                self._add(pair.number, finder.names, refs, hyps, said, put)

    def _add(
        self,
        number: int,
        names: Sequence[str],
        refs: Sequence[str],
        hyps: Sequence[str],
        said: Sequence[Place],
        put: Sequence[Place],
    ) -> None:
        hits, inserted = word_matches(refs, hyps)
        right = [
            place
            for place in said
            if place.start in hits
            and all(hits.get(word) == hits[place.start] + i for i, word in enumerate(place.words))
        ]
        for counter, places in ((self.said, said), (self.put, put), (self.right, right)):
            counter.update(names[place.entry] for place in places)
        of_list = {word for place in said for word in place.words}
        made_up = {word for place in put for word in place.words} & set(inserted)
        errors = sum(word not in hits for word in of_list) + len(made_up)
        self._rows.add(number, [len(right), len(said), len(put), errors, len(of_list)])

    def found(self, counts: Mapping[Counted, Counts], groups: Groups | None) -> ListedWords:
        all_N4 = counts["word"]
        rows_N5 = self._rows.put(np.zeros((len(all_N4), 5), dtype=np.int64))
        both_N2 = np.stack([all_N4[:, 1:].sum(1), all_N4[:, :3].sum(1)], axis=1)
        rates = {
            "recall": rows_N5[:, [0, 1]],
            "precision": rows_N5[:, [0, 2]],
            "b_wer": rows_N5[:, 3:],
            "u_wer": both_N2 - rows_N5[:, 3:],
        }
        shares = {name: Share(rows_N2, groups) for name, rows_N2 in rates.items()}
        return ListedWords(len(self._entries), shares, self.said, self.put, self.right)


class _Finder:
    """Finds the entries of a list in texts, indexed by their first words."""

    def __init__(self, entries: Mapping[tuple[str, ...], str]) -> None:
        self.names = list(entries.values())
        self._by_first: dict[str, list[tuple[int, list[str]]]] = defaultdict(list)
        for number, words in enumerate(entries):
            self._by_first[words[0]].append((number, list(words)))

    def places(self, words: Sequence[str]) -> list[Place]:
        """Return all occurrences, including overlapping ones."""
        return [
            Place(entry, start, len(wanted))
            for start in range(len(words))
            for entry, wanted in self._by_first.get(words[start], ())
            if words[start : start + len(wanted)] == wanted
        ]


@dataclass(frozen=True)
class ListedWords:
    """The result for a list: how often each entry was said (`said`), written (`put`) and right."""

    entries: int
    shares: Mapping[str, Share]
    said: Counter[str]
    put: Counter[str]
    right: Counter[str]
    name = "listed_words"

    def as_dict(self) -> dict[str, Any]:
        s = self.shares
        return {
            "entries": self.entries,
            "recall": s["recall"].as_dict("right", "said"),
            "precision": s["precision"].as_dict("right", "written"),
            "b_wer": s["b_wer"].as_dict("errors", "words"),
            "u_wer": s["u_wer"].as_dict("errors", "words"),
            "by_entry": {
                name: {"said": self.said[name], "right": self.right[name], "written": self.put[name]}
                for name in sorted({*self.said, *self.put})
            },
        }

    def table(self) -> str:
        s = self.shares
        head = f"{'rate %':>10}{'95 % interval':>18}"
        rows = [
            f"list of {self.entries} words and phrases, of which {len(self.said)} are said",
            f"{'':10}{head}{'right':>10}{'of':>10}",
            f"{'recall':10}{s['recall'].row()} said",
            f"{'precision':10}{s['precision'].row()} written",
            f"{'':10}{head}{'errors':>10}{'words':>10}",
            f"{'B-WER':10}{s['b_wer'].row()} of the list",
            f"{'U-WER':10}{s['u_wer'].row()} others",
            f"missed: {_most(self.said - self.right)}",
            f"written where not said: {_most(self.put - self.right)}",
        ]
        return "\n".join(rows)


def _most(counts: Counter[str]) -> str:
    """Format the most frequent entries; ties are in alphabetical order."""
    found = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = f" and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
    return ", ".join(f"{name} ({times})" for name, times in found[:_MOST_SHOWN]) + more or "none"
