"""Manifests, lists and texts, a line at a time."""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from asr.errors import DataError, printable

_MOST_LINE_BYTES = 16 << 20
_LINE_ENDS, _BYTE_ORDER_MARK = b"\r\n", b"\xef\xbb\xbf"


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, unpacked if its name ends in .gz, with their numbers and without their ends.

    Only a line feed parts lines.  Raises DataError naming the file, and the line where it is damaged or longer than
    16 MiB.
    """
    number = 0
    try:
        with _open(path) as file:
            for number in itertools.count(1):
                line = file.readline(_MOST_LINE_BYTES)
                if not line:
                    return
                if len(line) == _MOST_LINE_BYTES:
                    raise DataError(printable(f"{path}:{number}: longer than {_MOST_LINE_BYTES} bytes"))
                yield number, line.removeprefix(_BYTE_ORDER_MARK if number == 1 else b"").rstrip(_LINE_ENDS)
    except (OSError, EOFError, zlib.error) as e:
        where = f"{path}:{number}: the file is damaged there" if number else f"{path}: cannot be read"
        raise DataError(printable(f"{where}: {getattr(e, 'strerror', None) or e}")) from None


def filled_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Those of `numbered_lines` that hold more than white space."""
    return ((number, line) for number, line in numbered_lines(path) if line.strip())


def count_lines(path: Path) -> int:
    """How many line feeds a file has: what a progress bar needs to know; 0 if it cannot be read."""
    try:
        with _open(path) as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except (OSError, EOFError, zlib.error):
        return 0


def _open(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")
