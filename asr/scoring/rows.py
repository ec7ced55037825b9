"""What is scored, as a row for each utterance, read from a file as it goes by."""

from __future__ import annotations

import gzip
import os
import zlib
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

from asr.errors import DataError

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
    seen: set[str] = set()
    twice = dict.fromkeys(row.id for row in source.rows() if row.id in seen or seen.add(row.id))  # type: ignore[func-returns-value]
    if twice:
        raise DataError(f"{source.name} has {some(twice)} more than once")


def some(ids: Collection[str]) -> str:
    """The number of ids and the first of them, for a message."""
    shown = ", ".join(list(ids)[:10])
    more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
    return f"{len(ids)} id{'s' * (len(ids) > 1)} ({shown}{more})"


def lines(path: PathLike) -> Iterator[tuple[int, str]]:
    """Number and text of each line of a UTF-8 file; only a line feed parts lines, with or without a return.

    A name in .gz is unpacked. Raises DataError for what cannot be read or is not UTF-8, by its line.
    """
    name = os.fspath(path)
    try:
        with _open(name) as f:
            for number, line in enumerate(f, start=1):
                row = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                yield number, row.rstrip(b"\r\n").decode("utf-8")
    except UnicodeDecodeError as e:
        byte = row[e.start]
        raise DataError(f"{name}:{number}: not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8") from None
    except (OSError, EOFError, zlib.error) as e:
        raise DataError(f"{name}: cannot be read: {getattr(e, 'strerror', None) or e}") from None


def count_lines(path: PathLike) -> int:
    """About how many lines a file has: what a progress bar needs to know; 0 if it cannot be read."""
    try:
        with _open(os.fspath(path)) as f:
            return sum(block.count(b"\n") for block in iter(lambda: f.read(1 << 20), b""))
    except (OSError, EOFError, zlib.error):
        return 0


def _open(name: str) -> BinaryIO | gzip.GzipFile:
    return gzip.open(name) if name.endswith(".gz") else open(name, "rb")
