"""Manifests and lists, a line at a time."""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path

from asr.errors import DataError, printable

_MOST_LINE_BYTES = 16 << 20
_LINE_ENDS, _BYTE_ORDER_MARK = b"\r\n", b"\xef\xbb\xbf"


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, packed if its name ends in .gz, that hold something: their numbers, and they without ends.

    Raises DataError naming the file, and the line where it is damaged or longer than 16 MiB.
    """
    number = 0
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            for number in itertools.count(1):
                line = file.readline(_MOST_LINE_BYTES)
                if not line:
                    return
                if len(line) == _MOST_LINE_BYTES:
                    raise DataError(printable(f"{path}:{number}: longer than {_MOST_LINE_BYTES} bytes"))
                line = line.removeprefix(_BYTE_ORDER_MARK if number == 1 else b"").rstrip(_LINE_ENDS)
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error) as e:
        where = f"{path}:{number}: the file is damaged there" if number else f"{path}: cannot be read"
        raise DataError(printable(f"{where} ({getattr(e, 'strerror', None) or e})")) from None
