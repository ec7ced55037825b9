"""Whole files, or parts of them, at once.

Shapes: N samples.
"""

from __future__ import annotations

import math
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from asr.audio.child import ask
from asr.errors import AudioError, printable
from asr.files import Place, open_within

TIMEOUT_S = 60.0
MAX_BYTES = 2 << 30
_COPY_BYTES = 1 << 20


@runtime_checkable
class Readable(Protocol):
    """A file that is open in binary mode, as far as it is used here."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, eq=False)
class Audio:
    """A recording: `samples_N` mono float32, nominally within -1 and 1, and the file's own rate in hertz."""

    samples_N: NDArray[np.float32]
    sample_rate_hz: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples_N) / self.sample_rate_hz


class AudioLength(NamedTuple):
    """How many samples each channel of a file has, and their rate in hertz."""

    samples: int
    sample_rate_hz: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples / self.sample_rate_hz


def open_audio(
    path: str | os.PathLike[str],
    *,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    channels: Sequence[int] | None = None,
    timeout_s: float = TIMEOUT_S,
    max_bytes: int = MAX_BYTES,
) -> Audio:
    """Decode a file that libsndfile or ffmpeg reads, at its own rate: the mean of all channels, or of `channels`.

    `offset_s` and `duration_s` pick a part, in whole samples, so that adjoining parts tile the recording; a
    part that reaches past the end is shorter. With ffmpeg a part costs decoding from the start.
    Raises AudioError, one line that names the file, when it is missing, not a regular file, not readable,
    empty, without a channel that is asked for, not audio, without samples, silent (every sample zero: only when
    the whole is read), not finite, longer than `max_bytes` of float32 samples, or takes longer than `timeout_s`
    to decode. A file that holds less than its header promises is an error too, as half a text would pass for
    the whole; what promises nothing (ADTS, MP3 without a length, a WAV streamed without one) is decoded as far
    as it goes.
    """
    return _open(path, path, timeout_s, max_bytes, offset_s, duration_s, channels)


def open_audio_within(
    archive: Place,
    start: int,
    size: int,
    *,
    name: str,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    channels: Sequence[int] | None = None,
    timeout_s: float = TIMEOUT_S,
    max_bytes: int = MAX_BYTES,
) -> Audio:
    """Decode an audio file that stands in another file, such as a tar, as the `size` bytes from `start` on.

    `name` is for messages alone.  Raises AudioError as `open_audio` does, naming the archive and `name`; DataError for
    an archive behind a URL that cannot be read.
    """
    where = f"{archive}: {name}"
    problem = problem_of(archive) if isinstance(archive, Path) else None
    if problem is not None:
        raise error_about(str(archive), problem)
    with open_within(archive, start, size) as file, temporary_copy(file, where, size) as copy:
        return _open(copy, where, timeout_s, max_bytes, offset_s, duration_s, channels)


def _open(
    path: str | os.PathLike[str],
    name: str | os.PathLike[str],
    timeout_s: float,
    max_bytes: int,
    offset_s: float,
    duration_s: float | None,
    channels: Sequence[int] | None,
) -> Audio:
    if not (math.isfinite(offset_s) and 0 <= offset_s < 1e9):
        raise AudioError(f"{printable(name)}: offset_s must be between 0 and 1e9, not {offset_s}")
    if duration_s is not None and not 0 < duration_s < 1e9:
        raise AudioError(f"{printable(name)}: duration_s must be above 0 and below 1e9, not {duration_s}")
    part = {"offset_s": float(offset_s), "duration_s": duration_s, "channels": channels and [*channels]}
    data, answer = _ask(path, name, timeout_s, max_bytes, **part)
    return Audio(np.frombuffer(data, dtype=np.float32), int(answer["rate"]))


def audio_length(path: str | os.PathLike[str], *, timeout_s: float = TIMEOUT_S) -> AudioLength:
    """How long a file is, from its header where libsndfile trusts that, else counted by decoding.

    Raises AudioError as `open_audio` does, except that samples are not looked at.
    """
    _, answer = _ask(path, path, timeout_s, 0, count_only=True)
    return AudioLength(int(answer["frames"]), int(answer["rate"]))


def _ask(
    path: str | os.PathLike[str], name: str | os.PathLike[str], timeout_s: float, max_bytes: int, **part: Any
) -> tuple[bytearray, dict[str, Any]]:
    """Check that the file can be opened at all, then let the decoder have it; `name` is for messages."""
    problem = problem_of(path)
    if problem is None:
        data, answer = ask(request_for(path, timeout_s, max_bytes, **part))
        problem = answer.get("error")
        if problem is None:
            return data, answer
    raise error_about(name, problem)


@contextmanager
def temporary_copy(source: Readable, name: str, size: int | None = None) -> Iterator[str]:
    """The path of a file that holds `size` bytes of a source, or all, until the end of the `with` statement.

    Some formats, MP4 for one, are read from both ends.  Raises AudioError, naming `name`.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.NamedTemporaryFile(prefix="asr-"))
            while (size is None or file.tell() < size) and (
                data := source.read(_COPY_BYTES if size is None else min(_COPY_BYTES, size - file.tell()))
            ):
                file.write(data)
            file.flush()
        except OSError as error:  # the disk is full, or there is no folder for such files
            problem = f"cannot be copied to a temporary file ({error.strerror}); set TMPDIR"
            raise AudioError(f"{printable(name)}: {problem}") from None
        yield file.name


def request_for(path: str | os.PathLike[str], timeout_s: float, max_bytes: int, **part: Any) -> dict[str, Any]:
    """What the decoder is asked."""
    return {
        "path": os.path.abspath(path),
        "timeout_s": min(timeout_s, 1e6),
        "max_bytes": max_bytes,
        "search_path": os.environ.get("PATH"),
        "offset_s": 0.0,
        "duration_s": None,
        "count_only": False,
        "stream": False,
        "describe": False,
        "track": 0,
        "channels": None,
        **part,
    }


def error_about(name: str | os.PathLike[str], problem: str) -> AudioError:
    """One line that names the file."""
    return AudioError(f"{printable(name)}: {printable(problem)[:300]}")


def problem_of(path: str | os.PathLike[str]) -> str | None:
    """Why a file cannot be opened at all, if so."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            return "is a directory, not an audio file"
        if not stat.S_ISREG(status.st_mode):
            return "is not a regular file"
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except FileNotFoundError:
        return "no such file"
    except PermissionError:
        return "permission denied"
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None if status.st_size else "is empty (0 bytes)"
