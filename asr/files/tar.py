"""Reading of tar archives in place, without unpacking them."""

from __future__ import annotations

import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import IO, Any, NamedTuple, cast

from asr.errors import ArchiveError, printable

from .places import Place, open_place

# tarfile reads a header's extension (a long name, pax records) into memory at once and searches it with regular
# expressions; real ones have a few hundred bytes.
MAX_TAR_READ = 64 << 10

Fail = Callable[..., ArchiveError]  # takes the problem and the name of the member that has it


class TarMember(NamedTuple):
    """A file in a tar: its name, which is never used as a path, and the offset and number of its bytes."""

    name: str
    start: int
    size: int


class TarInput(ABC):
    """The input from which tarfile reads headers, in limited amounts.  last: the bytes that were read last."""

    def __init__(self, fail: Fail) -> None:
        self.fail, self.last = fail, b""

    def read(self, size: int) -> bytes:
        """Read bytes.  Raises the error of `fail` for more than a header may hold."""
        if not 0 <= size <= MAX_TAR_READ:
            raise self.fail(f"broken: a header of {size} bytes")
        self.last = self.take(size)
        return self.last

    @abstractmethod
    def take(self, size: int) -> bytes:
        """Return the next bytes, fewer only at the end."""

    @abstractmethod
    def tell(self) -> int:
        """Return the offset of the next byte."""

    @abstractmethod
    def seek(self, position: int) -> None:
        """Move to an offset."""


def tar_entries(archive: tarfile.TarFile, source: TarInput) -> Iterator[tarfile.TarInfo]:
    """Yield all entries of a tar without keeping them in memory.  Raises EOFError if the end mark is missing."""
    while (entry := archive.next()) is not None:
        cast(Any, archive).members.clear()  # tarfile would keep them all
        yield entry
    # tarfile takes a truncated header for the end; the real end is a block of zeros.
    if source.last != bytes(tarfile.BLOCKSIZE):
        raise EOFError("it ends without its end mark, so something is missing")


def refuse_odd(entry: tarfile.TarInfo, fail: Fail) -> None:
    """Raise the error of `fail` unless the entry is a regular file."""
    if entry.issparse() or entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise fail("a link, a device or a sparse file", entry.name)
    if entry.size < 0:
        raise fail("a negative size", entry.name)


class Tar:
    """The regular files of an uncompressed tar, in order; only the headers are read to find them.

    Use it in a `with` statement.  Raises ArchiveError, one line with archive and member, for a link, a device, a sparse
    file, an invalid header, and a truncated archive; OSError, or DataError for a URL, if it cannot be opened.
    """

    def __init__(self, path: Place) -> None:
        self.path = path
        self._file = open_place(path)
        self._headers = _Headers(self.fail, self._file)

    def __enter__(self) -> Tar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[TarMember]:
        try:
            archive = tarfile.TarFile(fileobj=cast(Any, self._headers))
            for entry in tar_entries(archive, self._headers):
                refuse_odd(entry, self.fail)
                yield TarMember(entry.name, entry.offset_data, entry.size)
        except (tarfile.TarError, EOFError) as error:
            raise self.fail(f"broken: {error}") from None
        # Raised by tarfile for headers that it does not expect.
        except (ValueError, ArithmeticError, LookupError, RuntimeError) as error:
            raise self.fail(f"broken ({type(error).__name__}: {error})") from None

    def read(self, member: TarMember, most: int) -> bytes:
        """Return the contents of a member.  Raises ArchiveError if it has more than `most` bytes or ends early."""
        if member.size > most:
            raise self.fail(f"{member.size} bytes, more than the {most} expected", member.name)
        self._file.seek(member.start)
        data = self._file.read(member.size)
        if len(data) < member.size:
            raise self.fail("ends early", member.name)
        return data

    def fail(self, problem: str, member: str | None = None) -> ArchiveError:
        """Return an error whose message is one line that names the archive and the member."""
        where = "" if member is None else f": member '{printable(member)[:200]}'"
        return ArchiveError(f"{printable(self.path)}{where}: {printable(problem)[:300]}")


class _Headers(TarInput):
    """The headers of a tar file; the bytes between them are skipped unread."""

    def __init__(self, fail: Fail, file: IO[bytes]) -> None:
        super().__init__(fail)
        self._file = file

    def take(self, size: int) -> bytes:
        return self._file.read(size)

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, position: int) -> None:
        self._file.seek(position)
