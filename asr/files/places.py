"""Places of files: paths on a disk, or URLs that fsspec reads, such as s3://bucket/corpus."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, TypeVar, Union

from asr.errors import DataError, printable

if TYPE_CHECKING:
    from upath import UPath

Place: TypeAlias = Union[Path, "UPath"]
Result = TypeVar("Result")

# fsspec supports more protocols, some of which run commands or unpack archives.
PROTOCOLS = ("http", "https", "s3", "gs", "gcs", "az", "abfs", "hf")
MANIFESTS = (".jsonl", ".jsonl.gz")
PAUSES_S = (1.0, 5.0)  # before each retry
_BUFFER_BYTES = 1 << 16
_MOST_WITHIN_BYTES = 1 << 30
_NAME = re.compile(r"[\w.-]{1,255}")


def to_place(where: str | Place) -> Place:
    """Turn a path or a URL into a place.  Raises ValueError for a URL that is not supported."""
    text = str(where)
    protocol, is_url, rest = text.partition("://")
    if not is_url:
        return Path(text)
    if protocol not in PROTOCOLS:
        raise ValueError(f"{printable(protocol)}:// is not one of {', '.join(PROTOCOLS)}")
    # URLs are recorded with runs and results, so they must not contain secrets.
    if "@" in rest.partition("/")[0]:
        raise ValueError(
            f"{protocol}://: names, passwords and accounts are not taken from a URL; fsspec has files for them"
        )
    if "::" in rest or "?" in rest:
        raise ValueError(f"{printable(text)}: a URL with '::' or '?' is not supported")
    from upath import UPath  # takes 0.1 s, and few runs need it

    return UPath(text, **_options(protocol))


def _options(protocol: str) -> dict[str, Any]:
    if not protocol.startswith("http"):
        return {}
    from aiohttp import ClientTimeout  # whose default aborts any download that takes more than five minutes

    return {"client_kwargs": {"timeout": ClientTimeout(total=None, sock_connect=30, sock_read=60)}}


def is_folder(place: Place) -> bool:
    """Return whether a place is a folder; a URL counts as one unless it ends like a manifest."""
    return place.is_dir() if isinstance(place, Path) else not place.name.endswith(MANIFESTS)


def files_in(folder: Place) -> list[Place]:
    """List a folder in sorted order; behind a URL, only names of letters, digits, '.', '-' and '_' are listed.

    Raises DataError if a URL cannot be listed.
    """
    if isinstance(folder, Path):
        return sorted(folder.iterdir())
    paths = _tried(folder, lambda: folder.fs.ls(folder.path, detail=False))
    names = {str(path).rstrip("/").rpartition("/")[2] for path in paths}
    return [folder / name for name in sorted(names) if _NAME.fullmatch(name)]


def open_place(place: Place) -> IO[bytes]:
    """Open a file to be read from its start.  Raises DataError, now or while reading, if a URL cannot be read."""
    return place.open("rb") if isinstance(place, Path) else io.BufferedReader(_Remote(place), _BUFFER_BYTES)


def open_within(place: Place, start: int, size: int) -> IO[bytes]:
    """Open a file at `start`; behind a URL, only `size` bytes are fetched, and the file ends after them.

    Raises as `open_place` does.
    """
    if isinstance(place, Path):
        file = place.open("rb")
        file.seek(start)
        return file
    if size > _MOST_WITHIN_BYTES:
        raise DataError(f"{printable(place)}: {size} bytes from {start} on are more than are fetched at once")
    data = _tried(place, lambda: place.fs.cat_file(place.path, start, start + size))
    if len(data) != size:
        raise DataError(f"{printable(place)}: asked for {size} bytes from {start} on, it gives {len(data)}")
    return io.BytesIO(data)


def _tried(place: UPath, action: Callable[[], Result]) -> Result:
    """Return the result of an action, with retries after network errors.  Raises DataError for any exception."""
    pauses_s = iter(PAUSES_S)
    while True:
        try:
            return action()
        except Exception as e:  # whatever the libraries below fsspec raise
            reason = e.__cause__ or e  # fsspec reports most failures as FileNotFoundError
            pause_s = next(pauses_s, None)
            if pause_s is None or _final(reason):
                told = " ".join(str(reason).split())
                what = f"{type(reason).__name__}: {told}" if told else type(reason).__name__
                raise DataError(f"{printable(place)}: cannot be read ({printable(what)[:300]})") from None
            time.sleep(pause_s)


def _final(reason: BaseException) -> bool:
    """Return whether a retry would fail in the same way."""
    status = getattr(reason, "status", None)
    if isinstance(status, int):
        return 400 <= status < 500 and status not in (408, 429)
    return isinstance(reason, (ImportError, ValueError, PermissionError, FileNotFoundError))


class _Remote(io.RawIOBase):
    """A file behind a URL; every failure is a DataError of one line."""

    def __init__(self, place: UPath) -> None:
        self.place = place
        self._file: Any = None  # close() also runs if opening fails
        self._file = _tried(place, lambda: place.fs.open(place.path, "rb"))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        return int(_tried(self.place, lambda: self._file.seek(position, whence)))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        at = self.tell()

        def read() -> int:
            if self._file.tell() != at:  # an earlier attempt failed midway
                self._file.seek(at)
            data = self._file.read(len(view))
            view[: len(data)] = data  # ValueError if there is more than was requested
            return len(data)

        return _tried(self.place, read)

    def close(self) -> None:
        if not self.closed and self._file is not None:
            self._file.close()
        super().close()
