"""Transcripts of published corpora, line by line: a broken line is told of, and the next one is read."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from asr.errors import DataError, printable
from asr.files import numbered_lines


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Each line without the blanks around it, and where it stands (file:line); what is not UTF-8 becomes U+FFFD."""
    for number, line in numbered_lines(path):
        yield f"{printable(path)}:{number}", line.decode(errors="replace").strip(" ")


def filled_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Those that are not empty."""
    return ((where, line) for where, line in read_lines(path) if line)


def read_tsv(path: Path, columns: Sequence[str], escape: str | None = None) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a table with a header, tabs and no quotes, and where each stands; empty for one of another width.

    columns: those that must be there.  escape: makes a plain character of the next one.  Raises: DataError, naming the
    file, if it cannot be read or has no such columns.
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
