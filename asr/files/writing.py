"""Atomic writing of files; what a killed writer leaves behind, the next one removes."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}  # their OSErrors often name no file
_PREFIX = ".writing-"
_LONGEST_STEM = 240  # bytes, of the 255 that file systems allow: some are left for a number and a suffix


def make_folder(path: str | os.PathLike[str]) -> None:
    """Create a folder for output, with its parents, unless it exists, and sweep it.

    Raises OSError, naming the folder, if it is a file or not writable, so that this shows before any work.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, "is a file, not a folder", str(folder)) from None
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as e:
        raise OSError(e.errno, e.strerror, str(folder)) from None
    sweep(folder)


def sweep(folder: Path) -> None:
    """Remove what killed calls of write_atomically left in a folder, but not what is being written now."""
    for torn in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # being written by another process, already removed, or a file system without locks
            fd = os.open(torn, os.O_RDONLY)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(torn, ignore_errors=True)
            finally:
                os.close(fd)


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path on the same file system, and move the file written there to `path` at the end.

    The temporary file has the name of `path`, for writers that choose a format by the suffix, in a hidden folder of its
    own beside it, where libraries may put temporary files, too; the writer holds a lock on that folder.  Readers of
    `path` see either the old file or the new one, even after a power failure; if the body raises, only the old one
    remains.  A symbolic link stays, and the file that it points to is replaced.  The permissions of the file follow the
    umask.  Raises OSError, naming `path`, if it cannot be written.
    """
    target = Path(path)
    with naming(target):
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        if target.exists() and not target.is_file():  # replacing a device would remove it
            raise OSError(errno.EINVAL, "is not a regular file", str(target))
        real = Path(os.path.realpath(target))
        with _own_folder(real.parent) as folder:
            temporary = folder / target.name
            mode = _usual_mode(temporary)
            yield temporary
            os.chmod(temporary, mode)  # safetensors, for example, creates files that only their owner can read
            _sync(temporary)
            os.replace(temporary, real)
            _sync(real.parent)


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file as `write_atomically` does, a str as UTF-8."""
    with write_atomically(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Make OSErrors name `path` if they name a temporary file, or no file because the disk is full or read-only."""
    try:
        yield
    except OSError as e:
        if (e.filename is None and e.errno in NO_ROOM) or _PREFIX in str(e.filename):
            raise OSError(e.errno, e.strerror, os.fspath(path)) from None
        raise


def to_stem(name: str) -> str:
    """Shorten a file name so that a suffix can be added to it."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= _LONGEST_STEM else encoded[:_LONGEST_STEM].decode(errors="ignore")


def drop_torn_line(path: Path) -> None:
    """Remove the last line of a file, if the file exists, that a killed writer or a full disk left incomplete."""
    if not path.exists():
        return
    with path.open("rb+") as f:
        whole = f.read().rfind(b"\n") + 1
        f.truncate(whole)


@contextmanager
def _own_folder(parent: Path) -> Iterator[Path]:
    """Create a locked hidden folder, and remove it at the end."""
    folder, fd = _locked_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        with suppress(FileNotFoundError):  # swept before it was locked: try again
            fd = os.open(folder, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks, where sweep does nothing
                fcntl.flock(fd, fcntl.LOCK_EX)
            if folder.exists():
                return folder, fd
            os.close(fd)


def _usual_mode(temporary: Path) -> int:
    """Return the permissions of a new file in this folder: creating one shows them without changing the umask."""
    temporary.touch(exist_ok=False)
    mode = stat.S_IMODE(temporary.stat().st_mode)
    temporary.unlink()  # so that a body which writes nothing is an error, not an empty file
    return mode


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
