"""What is scored, as a row for each utterance, read from a file as it goes by."""

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
from asr.files import numbered_lines

Form = Literal["lines", "ids", "json", "table", "trn", "stm", "ctm", "subtitles"]
PathLike = str | os.PathLike[str]

_NO_FIELDS: Mapping[str, Any] = {}


class Row(NamedTuple):
    """One utterance of a file; fields: what else the file says of it, by name."""

    id: str
    text: str
    language: str | None = None
    fields: Mapping[str, Any] = _NO_FIELDS


@dataclass(frozen=True)
class Source:
    """Texts under a name for messages; each call of `rows` reads them from the start."""

    name: str
    form: Form | None
    rows: Callable[[], Iterator[Row]] = field(repr=False)


class Ids:
    """The ids that have gone by, in eight bytes each."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def add(self, id: str) -> None:
        self._hashes.append(hash(id))

    def __len__(self) -> int:
        return len(self._hashes)

    def all_different(self) -> bool:
        """Two ids of one hash may still differ, once in billions of files."""
        hashes = np.frombuffer(self._hashes, dtype=np.int64)
        return len(np.unique(hashes)) == len(hashes)


def check_twice(source: Source, ids: Ids) -> None:
    """Raise DataError, naming them, if some of a source's ids stand there more than once."""
    if ids.all_different():
        return
    counts = Counter(row.id for row in source.rows())
    twice = [id for id, count in counts.items() if count > 1]
    if twice:
        raise DataError(f"{source.name} has {some(twice)} more than once")


def some(ids: Collection[str]) -> str:
    """The number of ids and the first of them, for a message."""
    shown = printable(", ".join(list(ids)[:10]))
    more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
    return f"{len(ids)} id{'s' * (len(ids) > 1)} ({shown}{more})"


def lines(path: PathLike) -> Iterator[tuple[int, str]]:
    """Number and text of each line of a UTF-8 file, as `numbered_lines` parts it; DataError for what is not UTF-8."""
    for number, line in numbered_lines(Path(path)):
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as e:
            fault = f"not UTF-8 (byte 0x{line[e.start]:02x}); save the file as UTF-8"
            raise DataError(f"{os.fspath(path)}:{number}: {fault}") from None
