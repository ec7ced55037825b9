"""Tables of texts, .csv and .tsv: their rows, and the usual names of their columns."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple

from asr.errors import DataError, printable

from .lines import text_lines

PATHS = ("audio_filepath", "path", "file", "filename", "file_name", "audio", "audio_path", "wav")
TEXTS = ("text", "sentence", "transcript", "transcription")
IDS = ("id", "utt_id", "utterance_id", "utterance")
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}


class Table(NamedTuple):
    """A table: the names of its columns, what is between them, and its rows, each with the number of its last line."""

    names: list[str]
    delimiter: str
    rows: Iterator[tuple[int, list[str]]]

    def check(self, row: Sequence[str]) -> None:
        """Raise DataError for a row that does not have one value for each name."""
        if len(row) != len(self.names):
            raise DataError(f"{len(row)} columns, but the first line names {len(self.names)}")


def read_table(path: Path) -> Table:
    """Open a .csv, quoted as in RFC 4180, or a .tsv, where quotation marks have no special meaning.

    A .csv is delimited by commas, semicolons or tabs: whichever occurs most often in its first line that is not empty.
    Empty rows are left out.  Raises DataError, now or while rows are read, which names the file and the line.
    """
    kind = Path(path.name.lower().removesuffix(".gz")).suffix
    if kind not in (".csv", ".tsv"):
        raise DataError(f"{printable(path)}: a table's name ends in .csv or .tsv")
    lines = (f"{line}\n" for _, line in text_lines(path))
    blank, first = next(((i, line) for i, line in enumerate(lines) if line.strip()), (0, ""))
    delimiter = max(DELIMITERS, key=first.count) if kind == ".csv" else "\t"
    quoting: Any = csv.QUOTE_MINIMAL if kind == ".csv" else csv.QUOTE_NONE
    reader = csv.reader(chain(repeat("\n", blank), [first], lines), delimiter=delimiter, quoting=quoting, strict=True)

    def rows() -> Iterator[tuple[int, list[str]]]:
        try:
            yield from ((reader.line_num, row) for row in reader if any(row))
        except csv.Error as e:
            raise DataError(f"{path}:{reader.line_num}: {e}") from None

    found = rows()
    _, names = next(found, (0, []))
    return Table([name.strip() for name in names], delimiter, found)


def find_name(names: Collection[str], usual: Sequence[str]) -> str | None:
    """Return the name that is, in upper or lower case, the first of the usual ones that is present; None without."""
    by_case = {name.lower(): name for name in reversed(list(names))}
    return next((by_case[name] for name in usual if name in by_case), None)
