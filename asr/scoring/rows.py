"""Rows of texts to score, one for each utterance, streamed from files."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from asr.errors import DataError, printable
from asr.files import text_lines

Form = Literal["lines", "ids", "json", "table", "trn", "stm", "ctm", "subtitles"]
PathLike = str | os.PathLike[str]

_NO_FIELDS: Mapping[str, Any] = {}


class Row(NamedTuple):
    """One utterance of a file; fields: everything that the file says about it, by name."""

    id: str
    text: str
    language: str | None = None
    fields: Mapping[str, Any] = _NO_FIELDS


@dataclass(frozen=True)
class Source:
    """Texts with a name for messages; each call of `rows` reads them from the start."""

    name: str
    form: Form | None
    rows: Callable[[], Iterator[Row]] = field(repr=False)


class Ids:
    """The ids seen so far, stored as hashes of eight bytes each."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def add(self, id: str) -> None:
        self._hashes.append(hash(id))

    def __len__(self) -> int:
        return len(self._hashes)

    def all_different(self) -> bool:
        """Return whether all hashes differ; False is, very rarely, a hash collision."""
        hashes = np.frombuffer(self._hashes, dtype=np.int64)
        return len(np.unique(hashes)) == len(hashes)


def check_twice(source: Source, ids: Ids) -> None:
    """Raise DataError naming the ids that occur more than once in a source."""
    if ids.all_different():
        return
    counts = Counter(row.id for row in source.rows())
    twice = [id for id, count in counts.items() if count > 1]
    if twice:
        raise DataError(f"{source.name} has {some(twice)} more than once")


def some(ids: Collection[str]) -> str:
    """Return the number of ids and the first ten of them, for a message."""
    shown = printable(", ".join(list(ids)[:10]))
    more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
    return f"{len(ids)} id{'s' * (len(ids) > 1)} ({shown}{more})"


def lines(path: PathLike) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line, as split by `numbered_lines`; raise DataError if the file is not UTF-8."""
    return text_lines(Path(path))
