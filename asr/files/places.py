"""Where a corpus is: on a disk, or behind a URL that fsspec reads, such as s3://bucket/corpus."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, Union, cast

from asr.errors import DataError, printable

if TYPE_CHECKING:
    from upath import UPath

Place: TypeAlias = Union[Path, "UPath"]

# fsspec knows more, some of which run commands or unpack archives.
PROTOCOLS = ("http", "https", "s3", "gs", "gcs", "az", "abfs", "hf")
MANIFESTS = (".jsonl", ".jsonl.gz")


def to_place(where: str | Place) -> Place:
    """The place that a path or a URL names.  Raises ValueError for a URL that cannot be read."""
    protocol, is_url, _ = str(where).partition("://")
    if not is_url:
        return Path(str(where))
    if protocol not in PROTOCOLS:
        raise ValueError(f"{printable(protocol)}:// is none of {', '.join(PROTOCOLS)}")
    from upath import UPath  # 0.1 s, for few

    return UPath(str(where))


def is_folder(place: Place) -> bool:
    """Whether it is a folder; a URL is one unless it ends as a manifest does."""
    return place.is_dir() if isinstance(place, Path) else not place.name.endswith(MANIFESTS)


def files_in(folder: Place) -> list[Place]:
    """What is in a folder, by name.  Raises DataError where a URL cannot be listed."""
    if isinstance(folder, Path):
        return sorted(folder.iterdir())
    with _one_line(folder):
        names = folder.fs.ls(folder.path, detail=False)
    return [folder / name for name in sorted({name.rstrip("/").rpartition("/")[2] for name in names})]


def open_place(place: Place) -> IO[bytes]:
    """Open a file that is read from its beginning on.  Raises DataError for a URL that cannot be read, also later."""
    return place.open("rb") if isinstance(place, Path) else cast("IO[bytes]", _Remote(place))


def open_within(place: Place, start: int) -> IO[bytes]:
    """Open a file of which a part is read, from `start` on, and nothing else is fetched.  Raises as `open_place`."""
    file = place.open("rb") if isinstance(place, Path) else cast("IO[bytes]", _Remote(place, cache_type="none"))
    file.seek(start)
    return file


@contextmanager
def _one_line(place: UPath) -> Iterator[None]:
    try:
        yield
    except Exception as e:  # whatever the libraries below fsspec raise
        problem = " ".join(str(e).split()).removeprefix(str(place)).strip()
        reason = f"{type(e).__name__}: {problem}" if problem else type(e).__name__
        raise DataError(f"{printable(place)}: cannot be read ({printable(reason)[:300]})") from None


class _Remote(io.RawIOBase):
    """A file behind a URL, whose every failure is one line.  options: fsspec's, for opening it."""

    def __init__(self, place: UPath, **options: Any) -> None:
        self.place = place
        with _one_line(place):
            self._file = place.fs.open(place.path, "rb", **options)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        with _one_line(self.place):
            return int(self._file.seek(position, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        with _one_line(self.place):
            data = self._file.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
