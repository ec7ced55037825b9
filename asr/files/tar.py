"""Tar archives whose files are left where they stand."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, cast

from asr.errors import ArchiveError, printable

# tarfile reads a header's extension (a long name, pax records) into memory in one go and searches it with
# regular expressions: real ones are a few hundred bytes.
MAX_TAR_READ = 64 << 10


class TarMember(NamedTuple):
    """A file in a tar: its name, which is never taken for a path, and where its bytes stand."""

    name: str
    start: int
    size: int


class Tar:
    """The regular files of an uncompressed tar, in order, found by their headers alone.

    Raises ArchiveError, one line with archive and member, for a link, a device or a sparse file, a header that makes no
    sense, and an archive that is cut short; OSError if it cannot be opened.  Use it in a `with` statement.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = self.path.open("rb")
        self._headers = _Headers(self)

    def __enter__(self) -> Tar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[TarMember]:
        try:
            archive = tarfile.TarFile(fileobj=cast(Any, self._headers))
            while (member := archive.next()) is not None:
                cast(Any, archive).members.clear()  # tarfile would keep them all
                if member.issparse() or member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    raise self.fail("a link, a device or a sparse file", member.name)
                if member.size < 0:
                    raise self.fail("a negative size", member.name)
                yield TarMember(member.name, member.offset_data, member.size)
        except tarfile.TarError as error:
            raise self.fail(f"broken: {error}") from None
        # What tarfile raises on headers that it did not foresee.
        except (ValueError, ArithmeticError, LookupError, RuntimeError) as error:
            raise self.fail(f"broken ({type(error).__name__}: {error})") from None
        # tarfile takes a torn header for the end; the real end is a block of zeros.
        if self._headers.last != bytes(tarfile.BLOCKSIZE):
            raise self.fail("it ends without its end mark, so something is missing")

    def read(self, member: TarMember, most: int) -> bytes:
        """What is in a member of at most `most` bytes."""
        if member.size > most:
            raise self.fail(f"{member.size} bytes, more than the {most} expected", member.name)
        self._file.seek(member.start)
        data = self._file.read(member.size)
        if len(data) < member.size:
            raise self.fail("ends early", member.name)
        return data

    def fail(self, problem: str, member: str | None = None) -> ArchiveError:
        """One line that names the archive, and the member."""
        where = "" if member is None else f": member '{printable(member)[:200]}'"
        return ArchiveError(f"{printable(self.path)}{where}: {printable(problem)[:300]}")


class _Headers:
    """What tarfile reads from: never much at a time."""

    def __init__(self, tar: Tar) -> None:
        self.tar = tar
        self.last = b""

    @property
    def _file(self) -> IO[bytes]:
        return self.tar._file

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, position: int) -> None:
        self._file.seek(position)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_TAR_READ:
            raise self.tar.fail(f"broken: a header of {size} bytes")
        self.last = self._file.read(size)
        return self.last
