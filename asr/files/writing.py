"""Files that appear whole or not at all; what a killed writer leaves, the next one takes away."""

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

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}  # whose errors often name no file
_PREFIX = ".writing-"


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder that is to be written to, and those above it, unless it is there; then it is swept.

    Raises OSError, naming the folder, if it is a file or nothing can be written into it: now, before any work.
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
    """Take away what killed calls of write_atomically left in a folder; what is being written now stays."""
    for torn in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another program is writing there, or was faster, or the file system has no locks
            fd = os.open(torn, os.O_RDONLY)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(torn, ignore_errors=True)
            finally:
                os.close(fd)


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path on the same file system, and put what is written there in place of `path` at the end.

    The temporary has the name of `path`, for writers that choose a format by the suffix, in a hidden folder of its
    own beside it, where libraries may have temporaries of theirs; whoever writes it holds a lock on that folder.
    Whoever looks at `path` sees the old file or the new one, after a power cut too; if the body fails, the old one,
    and nothing else.  The file's permissions follow the umask, whoever writes it.  OSError, naming `path`, if it
    cannot be written there.
    """
    target = Path(path)
    with naming(target):
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        if target.exists() and not target.is_file():  # a device would be gone
            raise OSError(errno.EINVAL, "is no file to be written anew", str(target))
        with _own_folder(target.parent) as folder:
            temporary = folder / target.name
            mode = _usual_mode(temporary)
            yield temporary
            os.chmod(temporary, mode)  # safetensors, for one, makes files that only their owner may read
            _sync(temporary)
            os.replace(temporary, target)
            _sync(target.parent)


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Make errors of the system name `path` instead of a temporary, or of nothing where a disk is full or closed."""
    try:
        yield
    except OSError as e:
        if (e.filename is None and e.errno in NO_ROOM) or _PREFIX in str(e.filename):
            raise OSError(e.errno, e.strerror, os.fspath(path)) from None
        raise


def drop_torn_line(path: Path) -> None:
    """Cut off the last line of a file, if there is one, that a killed writer or a full disk left without its end."""
    if not path.exists():
        return
    with path.open("rb+") as f:
        whole = f.read().rfind(b"\n") + 1
        f.truncate(whole)


@contextmanager
def _own_folder(parent: Path) -> Iterator[Path]:
    """A new hidden folder under a lock, gone at the end."""
    folder, fd = _locked_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        with suppress(FileNotFoundError):  # swept before it was locked: once more
            fd = os.open(folder, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks, where nobody sweeps either
                fcntl.flock(fd, fcntl.LOCK_EX)
            if folder.exists():
                return folder, fd
            os.close(fd)


def _usual_mode(temporary: Path) -> int:
    """The permissions of a plain new file in this folder: only making one tells, without changing the umask."""
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
