"""Safe unpacking of untrusted archives."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import secrets
import shutil
import stat
import subprocess
import tarfile
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from asr.errors import ArchiveError, printable

from .tar import TarInput, refuse_odd, tar_entries
from .writing import NO_ROOM

MAX_BYTES = 64 << 30
TIMEOUT_S = 3600.0

# Speech and text never compress two-hundredfold; an archive that claims so is a bomb.
_MAX_RATIO = 200
_RATIO_SLACK = 64 << 20
_COPY_BYTES = 64 << 10
_ZIP_ENCRYPTED = 0x1

_OPENERS: dict[str, Callable[[Path], Any]] = {
    ".tar": lambda path: path.open("rb"),
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.xz": lzma.open,
    ".tar.bz2": bz2.open,
}
_KINDS = (".deb", ".zip", *_OPENERS)


def extract_archive(
    archive: str | os.PathLike[str],
    into: str | os.PathLike[str],
    *,
    keep: Callable[[str], bool] | None = None,
    max_bytes: int = MAX_BYTES,
    timeout_s: float = TIMEOUT_S,
) -> list[Path]:
    """Unpack a .deb, .tar, .tar.gz, .tgz, .tar.xz, .tar.bz2 or .zip file into a folder; return the files written.

    `keep` is called with the name of each member ('usr/share/x.wav', without './'); members that it rejects are neither
    written nor checked.  Folders are created only for the files in them.  Modes, owners and times are not restored.
    Raises ArchiveError, one line with archive and member, for an absolute name, '..', a backslash or a control
    character in a name, a link, a device, a sparse file, a duplicate name, contents that differ from the declared size
    or checksum, an unpacked size above `max_bytes` or beyond any real compression ratio, a truncated or broken archive,
    or if unpacking takes longer than `timeout_s`.  Nothing has been written then: files are moved to `into` once all
    are unpacked (in one step if `into` is missing or empty, else one by one, replacing existing files).
    """
    job = _Extraction(Path(archive), Path(into), keep or (lambda name: True), max_bytes, timeout_s)
    return job.run()


class _Extraction:
    """The extraction of one archive into a folder, by way of a hidden folder beside it."""

    def __init__(
        self, archive: Path, into: Path, keep: Callable[[str], bool], max_bytes: int, timeout_s: float
    ) -> None:
        self.archive, self.into, self.keep = archive, into, keep
        self.max_bytes = max_bytes
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s
        beside = Path(os.path.abspath(into))
        self.staging = beside.with_name(f".{beside.name[-200:]}-{secrets.token_hex(4)}")
        self.names: list[PurePosixPath] = []
        self.read_bytes = 0

    def fail(self, problem: str, member: str | None = None) -> ArchiveError:
        where = "" if member is None else f": member '{printable(member)[:200]}'"
        return ArchiveError(f"{printable(self.archive)}{where}: {printable(problem)[:300]}")

    def run(self) -> list[Path]:
        kind = next((k for k in _KINDS if self.archive.name.lower().endswith(k)), None)
        if kind is None:
            raise self.fail(f"not a kind of archive that is known ({', '.join(_KINDS)})")
        try:
            status = self.archive.stat()
            if not stat.S_ISREG(status.st_mode):
                raise self.fail("not a regular file")
            self.max_bytes = min(self.max_bytes, _RATIO_SLACK + _MAX_RATIO * status.st_size)
            self.staging.parent.mkdir(parents=True, exist_ok=True)
            self.staging.mkdir()
            if kind == ".zip":
                self._unpack_zip()
            elif kind == ".deb":
                self._unpack_deb()
            else:
                with _OPENERS[kind](self.archive) as stream:
                    self._unpack_tar(stream)
            return self._publish()
        except ArchiveError:
            raise
        except OSError as error:
            if error.errno in NO_ROOM:  # not the fault of the archive, which may be on another disk
                raise self.fail(f"cannot be unpacked into {self.into}: {error.strerror}") from None
            raise self.fail(error.strerror or f"broken: {error}") from None
        except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
            raise self.fail(f"broken: {error or type(error).__name__}") from None
        # Raised by the libraries for headers that they do not expect (numbers, encodings, compression methods).
        except (ValueError, ArithmeticError, LookupError, RuntimeError, MemoryError) as error:
            raise self.fail(f"broken ({type(error).__name__}: {error})") from None
        finally:
            shutil.rmtree(self.staging, ignore_errors=True)

    # --- members --------------------------------------------------------------------------------------

    def wanted(self, name: str) -> PurePosixPath | None:
        """Return the safe relative path of a member, None if it is not to be kept.  Raises ArchiveError."""
        path = PurePosixPath(name)
        if not self.keep(str(path)):
            return None
        if not path.parts and not name.endswith(("/", ".")):
            raise self.fail("no name", name)
        if path.is_absolute():
            raise self.fail("an absolute name", name)
        if ".." in path.parts:
            raise self.fail("its name leads out of the folder ('..')", name)
        if "\\" in name or any(ord(c) < 32 or ord(c) == 127 for c in name):
            raise self.fail("a backslash or control character in its name", name)
        return path

    def count(self, size: int) -> None:
        """Count unpacked bytes, and check the limits of size and time."""
        self.read_bytes += size
        if self.read_bytes > self.max_bytes:
            raise self.fail(f"unpacks to more than {self.max_bytes} bytes (max_bytes, or {_MAX_RATIO} times its size)")
        if time.monotonic() > self.deadline:
            raise self.fail(f"takes longer than {self.timeout_s:g} s to unpack")

    def write(self, path: PurePosixPath, name: str, size: int, source: IO[bytes]) -> None:
        """Copy a member into the hidden folder."""
        target = self.staging / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            out = target.open("xb")
        except (FileExistsError, IsADirectoryError, NotADirectoryError):
            raise self.fail("would write over another member", name) from None
        with out:
            left = size
            while left:
                data = source.read(min(left, _COPY_BYTES))
                if not data:
                    raise self.fail(f"ends {left} bytes before its declared size", name)
                out.write(data)
                self.count(0)
                left -= len(data)
            if source.read(1):
                raise self.fail("larger than it declares", name)
            out.flush()
            os.fsync(out.fileno())
        self.names.append(path)

    # --- kinds of archives ----------------------------------------------------------------------------

    def _unpack_zip(self) -> None:
        with zipfile.ZipFile(self.archive) as archive:
            for info in archive.infolist():
                # zipfile cuts names at a zero byte; check the name as it is in the archive.
                path = self.wanted(info.orig_filename)
                mode = info.external_attr >> 16
                if path is None:
                    continue
                if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise self.fail("a link or a device", info.filename)
                if info.is_dir():
                    continue
                if info.flag_bits & _ZIP_ENCRYPTED:
                    raise self.fail("encrypted", info.filename)
                self.count(info.file_size)
                with archive.open(info) as source:
                    self.write(path, info.filename, info.file_size, source)

    def _unpack_deb(self) -> None:
        command = ["dpkg-deb", "--fsys-tarfile", os.path.abspath(self.archive)]
        with tempfile.TemporaryFile() as errors:
            try:
                pipe, null = subprocess.PIPE, subprocess.DEVNULL
                process = subprocess.Popen(command, stdin=null, stdout=pipe, stderr=errors)
            except FileNotFoundError:
                raise self.fail("dpkg-deb is needed to unpack it: install dpkg") from None
            # Reading from its pipe could block for ever; killing the process ends that.
            timer = threading.Timer(self.timeout_s, process.kill)
            timer.start()
            try:
                self._read_deb(process)
            finally:
                timer.cancel()
            if process.returncode:
                errors.seek(0)
                lines = errors.read(4096).decode("utf-8", "replace").splitlines() or ["dpkg-deb failed"]
                self.count(0)
                raise self.fail(f"broken: {lines[-1]}")

    def _read_deb(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process:
            try:
                self._unpack_tar(process.stdout)
            except (tarfile.TarError, EOFError):
                # Most likely dpkg-deb failed; then its own message says more.
                while data := process.stdout.read(_COPY_BYTES):
                    self.count(len(data))
                if process.wait() == 0:
                    raise
            except BaseException:
                process.kill()
                raise

    def _unpack_tar(self, stream: IO[bytes]) -> None:
        source = _Stream(self, stream)
        with tarfile.TarFile(fileobj=cast(Any, source)) as archive:
            for member in tar_entries(archive, source):
                path = self.wanted(member.name)
                if path is None or member.isdir():
                    continue
                refuse_odd(member, self.fail)
                data = archive.extractfile(member)
                assert data is not None
                with data:
                    self.write(path, member.name, member.size, data)
        source.drain()

    # --- the result -----------------------------------------------------------------------------------

    def _publish(self) -> list[Path]:
        files = [self.into / path for path in self.names]
        with suppress(OSError):  # succeeds if the folder is missing or empty, and is atomic
            os.rename(self.staging, self.into)
            return files
        root = self.into.resolve()
        for target in files:
            if not target.parent.resolve().is_relative_to(root):
                raise self.fail(f"a link in {self.into} leads out of it", str(target))
            if target.is_dir():
                raise self.fail(f"{target} is a folder already")
        for path, target in zip(self.names, files, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.staging / path, target)
        return files


class _Stream(TarInput):
    """A tar from a pipe or a decompressor: bytes are counted and read only forwards."""

    def __init__(self, job: _Extraction, stream: IO[bytes]) -> None:
        super().__init__(job.fail)
        self.job, self.stream = job, stream
        self.position = 0

    def tell(self) -> int:
        return self.position

    def take(self, size: int) -> bytes:
        taken = b""
        while len(taken) < size and (data := self.stream.read(size - len(taken))):
            taken += data
            self.job.count(len(data))
        self.position += len(taken)
        return taken

    def seek(self, position: int) -> None:
        if position < self.position:
            raise self.job.fail("broken: a header that points backwards")
        while self.position < position and self.read(min(position - self.position, _COPY_BYTES)):
            pass

    def drain(self) -> None:
        """Read to the end of the stream, where gzip and xz have their checksums."""
        while self.read(_COPY_BYTES):
            pass
