"""Read transcripts of published corpora line by line, so that a broken line can be reported and skipped."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from asr.errors import DataError, printable
from asr.files import numbered_lines


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield place (file:line) and text, without spaces at the ends, of each line; invalid UTF-8 becomes U+FFFD."""
    for number, line in numbered_lines(path):
        yield f"{printable(path)}:{number}", line.decode(errors="replace").strip(" ")


def filled_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines that are not empty."""
    return ((where, line) for where, line in read_lines(path) if line)


def read_tsv(path: Path, columns: Sequence[str], escape: str | None = None) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield place and row of each line of an unquoted tab-separated table with a header; {} for a row of wrong width.

    columns: required columns.  escape: makes the following character literal.  Raises: DataError, naming the file, if
    it cannot be read or lacks a column.
    """
    lines = ((where, _fields(line, escape)) for where, line in filled_lines(path))
    _, header = next(lines, ("", []))
    if missing := [name for name in columns if name not in header]:
        raise DataError(f"{printable(path)}:1: no column {', '.join(missing)}")
    for where, fields in lines:
        yield where, dict(zip(header, fields, strict=True)) if len(fields) == len(header) else {}


def _fields(line: str, escape: str | None) -> list[str]:
    if escape is None:
        return line.split("\t")
    try:
        return next(csv.reader([line], delimiter="\t", quoting=csv.QUOTE_NONE, escapechar=escape))
    except csv.Error:
        return []
