"""Unpack the archives of a corpus, once, into folders that appear whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rich.console import Console

from asr.errors import ArchiveError, AsrError, DataError
from asr.files import extract_archive
from recipes.fetch import http_download
from recipes.preparing import state_of, whole_folder

TIMEOUT_S = 12 * 3600.0  # the largest archive of a recipe has 50 GB


def unpacked(archives: Sequence[Path], place: Path, *, keep: Callable[[str], bool], max_bytes: int) -> Path:
    """Unpack the members of some archives that `keep` accepts into `place`, unless it exists.

    max_bytes: limit for an unpacked archive.  Raises: asr.errors.ArchiveError, naming archive and member.
    """
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(place) as into:
            for archive in archives:
                extract_archive(archive, into, keep=keep, max_bytes=max_bytes, timeout_s=TIMEOUT_S)
    return place


class Archive(NamedTuple):
    """An archive of a corpus.

    name: its path on a mirror.  folder: the folder that it contains.  max_bytes: limit for its unpacked size.  keep:
    whether a member is needed.
    """

    name: str
    folder: str
    max_bytes: int
    keep: Callable[[str], bool]


@dataclass(frozen=True)
class Supply:
    """The source of archives: the folder `source`, or a server; downloaded and unpacked files are kept below `out`."""

    out: Path
    source: Path | None
    mirror: str

    def folder(self, archive: Archive, console: Console) -> Path:
        """Return the unpacked folder of an archive, which `source` may already contain.

        Raises: AsrError that says what is missing where.
        """
        inside, name = PurePosixPath(archive.folder), PurePosixPath(archive.name).name
        place = self.out / "unpacked" / name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
        if self.source is None:
            if not place.exists():
                file = self.out / "downloads" / name
                http_download(f"{self.mirror}/{archive.name}", file, console, max_bytes=archive.max_bytes)
                self._unpack(file, place, archive)
            return self._checked(place / inside)
        for folder in (self.source / inside, self.source / inside.name, self.source):
            if folder.name == inside.name and folder.is_dir():
                return folder
        file = self.source / name
        if not file.is_file():
            raise AsrError(f"--source {self.source}: holds neither {inside} nor {name}")
        place = place.with_name(f"{place.name}-{state_of([file])[:12]}")
        self._unpack(file, place, archive)
        return self._checked(place / inside)

    def _unpack(self, file: Path, place: Path, archive: Archive) -> None:
        try:
            unpacked([file], place, keep=archive.keep, max_bytes=archive.max_bytes)
        except ArchiveError as error:
            if self.source is not None:
                raise
            raise ArchiveError(f"{error}; if the download is broken, remove {file} and run this again") from None

    def _checked(self, folder: Path) -> Path:
        if not folder.is_dir():
            raise DataError(f"{folder}: not contained in the archive: remove the archive, and run this again")
        return folder
