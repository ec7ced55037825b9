"""Files written whole or not at all, and archives read without trusting them."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .archive import extract_archive
from .tar import Tar, TarMember

__all__ = ["Tar", "TarMember", "extract_archive", "make_folder", "write_atomically"]


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder that is to be written to, and those above it, unless it is there.

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


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path in the same folder, and put what is written there in place of `path` at the end.

    The temporary name ends as `path` does, for writers that choose a format by the suffix. Whoever looks at
    `path` sees the old file or the new one, after a power cut too; if the body fails, the old one, and no
    temporary file. The file's permissions follow the umask, whoever writes it. OSError, naming `path`, if it
    cannot be written there.
    """
    target = Path(path)
    temporary = target.with_name(f".{secrets.token_hex(4)}-{target.name[-200:]}")
    mode = _usual_mode(temporary, target)
    try:
        yield temporary
        os.chmod(temporary, mode)  # safetensors, for one, makes files that only their owner may read
        _sync(temporary)
        os.replace(temporary, target)
        _sync(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _usual_mode(temporary: Path, target: Path) -> int:
    """The permissions of a plain new file in this folder: only making one tells, without changing the umask."""
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        temporary.touch(exist_ok=False)
        mode = stat.S_IMODE(temporary.stat().st_mode)
        temporary.unlink()  # so that a body which writes nothing is an error, not an empty file
    except OSError as e:
        raise OSError(e.errno, e.strerror, str(target)) from None
    return mode


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
