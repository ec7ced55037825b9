"""Reading and writing manifests, lists and texts line by line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from asr.errors import DataError, printable

from .places import Place, open_place
from .writing import write_atomically

_MOST_LINE_BYTES = 16 << 20
_LINE_ENDS, _BYTE_ORDER_MARK = b"\r\n", b"\xef\xbb\xbf"


def json_line(value: Any, **options: Any) -> bytes:
    """Encode a value as JSON with a line feed; options are those of json.dumps.

    Undecodable bytes, for example of a file's name, are lone surrogates in a str; they are written as JSON escapes.
    """
    return json.dumps(value, ensure_ascii=False, **options).encode("utf-8", "backslashreplace") + b"\n"


@contextmanager
def json_writer(path: Path) -> Iterator[Callable[[Any], None]]:
    """Give a function that writes a value as one line of JSON; the file is written as by `byte_writer`."""
    with byte_writer(path) as stream:

        def write(value: Any) -> None:
            stream.write(json_line(value))

        yield write


@contextmanager
def byte_writer(path: Path) -> Iterator[IO[bytes]]:
    """Give a stream of bytes for a file that is written atomically.

    If the name ends in .gz it is compressed, without name and time, so that the same content makes the same bytes.
    """
    with write_atomically(path) as part, part.open("wb") as raw:
        if not path.name.endswith(".gz"):
            yield raw
            return
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
            yield cast("IO[bytes]", packed)


def numbered_lines(path: Place) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file, decompressed if its name ends in .gz, with their numbers and without line ends.

    Only line feeds separate lines.  Raises DataError naming the file, and the line if it is damaged or longer than
    16 MiB.
    """
    read = None
    try:
        with _open(path) as file:
            read = 0
            for read, line in enumerate(iter(partial(file.readline, _MOST_LINE_BYTES), b""), start=1):
                if len(line) == _MOST_LINE_BYTES:
                    raise DataError(printable(f"{path}:{read}: longer than {_MOST_LINE_BYTES} bytes"))
                if read == 1:
                    line = line.removeprefix(_BYTE_ORDER_MARK)
                yield read, line.rstrip(_LINE_ENDS)
    except (OSError, EOFError, zlib.error) as e:
        where = f"{path}: cannot be read" if read is None else f"{path}:{read + 1}: the file is damaged there"
        raise DataError(printable(f"{where}: {getattr(e, 'strerror', None) or e}")) from None


def text_lines(path: Place) -> Iterator[tuple[int, str]]:
    """Yield the lines of `numbered_lines` as text.  Raises DataError if the file is not UTF-8."""
    for number, line in numbered_lines(path):
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as e:
            fault = f"not UTF-8 (byte 0x{line[e.start]:02x}); save the file as UTF-8"
            raise DataError(printable(f"{path}:{number}: {fault}")) from None


def filled_lines(path: Place) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of `numbered_lines` that hold more than white space."""
    return ((number, line) for number, line in numbered_lines(path) if line.strip())


def count_lines(path: Place) -> int:
    """Return the number of line feeds in a file, for a progress bar; 0 if it cannot be read."""
    try:
        with _open(path) as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except (OSError, EOFError, zlib.error):
        return 0


@contextmanager
def _open(path: Place) -> Iterator[IO[bytes]]:
    with open_place(path) as file:
        if not path.name.lower().endswith(".gz"):
            yield file
            return
        with gzip.open(file) as unpacked:
            yield cast("IO[bytes]", unpacked)
