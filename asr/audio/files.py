"""Reading audio files, or parts of them, at once.

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
    """A file open in binary mode, of which only `read` is used."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, eq=False)
class Audio:
    """A decoded recording: mono float32 samples (N,), nominally from -1 to 1, and the file's own rate in hertz."""

    samples_N: NDArray[np.float32]
    sample_rate_hz: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples_N) / self.sample_rate_hz


class AudioLength(NamedTuple):
    """The number of samples per channel of a file, and their rate in hertz."""

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
    name: str | None = None,
) -> Audio:
    """Decode a file that libsndfile or ffmpeg can read, at its own rate: the mean of all channels, or of `channels`.

    `offset_s` and `duration_s` select a part, rounded to whole samples so that adjacent parts tile the recording; a
    part that extends past the end is shorter.  With ffmpeg, a part costs decoding from the start of the file.
    name: what messages call the file, by default its path.
    Raises AudioError, one line that names the file, if it is missing, not a regular file, not readable, empty, without
    a requested channel, not audio, without samples, silent (every sample zero; only when the whole file is read), not
    finite, longer than `max_bytes` of float32 samples, or takes longer than `timeout_s` to decode.  A file that holds
    less than its header promises is an error, too, as half a text would pass for the whole, and so is an Ogg file, read
    whole, with damaged or missing pages; a file that promises nothing (ADTS, MP3 without a length, a WAV streamed
    without one) is decoded as far as it goes.
    """
    told = path if name is None else name
    if not (math.isfinite(offset_s) and 0 <= offset_s < 1e9):
        raise AudioError(f"{printable(told)}: offset_s must be between 0 and 1e9, not {offset_s}")
    if duration_s is not None and not 0 < duration_s < 1e9:
        raise AudioError(f"{printable(told)}: duration_s must be above 0 and below 1e9, not {duration_s}")
    part = {"offset_s": float(offset_s), "duration_s": duration_s, "channels": channels and [*channels]}
    data, answer = answer_about(path, told, timeout_s, max_bytes, **part)
    return Audio(np.frombuffer(data, dtype=np.float32), int(answer["rate"]))


def open_audio_within(archive: Place, start: int, size: int, *, name: str, **part: Any) -> Audio:
    """Decode an audio file within another file, such as a tar: its `size` bytes from `start` on.

    `name` is only for messages.  part: keyword arguments of `open_audio`.  Raises AudioError as `open_audio` does,
    naming the archive and `name`, and DataError if an archive behind a URL cannot be read.
    """
    where = f"{archive}: {name}"
    problem = problem_of(archive) if isinstance(archive, Path) else None
    if problem is not None:
        raise error_about(str(archive), problem)
    with open_within(archive, start, size) as file, temporary_copy(file, where, size) as copy:
        return open_audio(copy, name=where, **part)


def audio_length(path: str | os.PathLike[str], *, timeout_s: float = TIMEOUT_S) -> AudioLength:
    """Return the length of a file, from its header if libsndfile trusts that, else counted by decoding.

    Raises AudioError as `open_audio` does, but without checking the samples.
    """
    _, answer = answer_about(path, path, timeout_s, 0, count_only=True)
    return AudioLength(int(answer["frames"]), int(answer["rate"]))


def answer_about(
    path: str | os.PathLike[str], name: str | os.PathLike[str], timeout_s: float, max_bytes: int, **part: Any
) -> tuple[bytearray, dict[str, Any]]:
    """Check that the file can be opened, and ask the decoder about it.  Raises AudioError, naming `name`."""
    problem = problem_of(path)
    if problem is None:
        data, answer = ask(request_for(path, timeout_s, max_bytes, **part))
        problem = answer.get("error")
        if problem is None:
            return data, answer
    raise error_about(name, problem)


@contextmanager
def temporary_copy(source: Readable, name: str, size: int | None = None) -> Iterator[str]:
    """Copy `size` bytes of a source, or all of it, to a temporary file, and give its path.

    A copy is needed because some formats, such as MP4, are read from both ends.  It is gone after the `with` statement.
    Raises AudioError, naming `name`.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.NamedTemporaryFile(prefix="asr-"))
            while (size is None or file.tell() < size) and (
                data := source.read(_COPY_BYTES if size is None else min(_COPY_BYTES, size - file.tell()))
            ):
                file.write(data)
            file.flush()
        except OSError as error:  # the disk is full, or there is no temporary folder
            problem = f"cannot be copied to a temporary file ({error.strerror}); set TMPDIR"
            raise AudioError(f"{printable(name)}: {problem}") from None
        yield file.name


def request_for(path: str | os.PathLike[str], timeout_s: float, max_bytes: int, **part: Any) -> dict[str, Any]:
    """Return a request to the decoder; `part` replaces defaults."""
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
    """Return an error whose message is one line that names the file."""
    return AudioError(f"{printable(name)}: {printable(problem)[:300]}")


def problem_of(path: str | os.PathLike[str]) -> str | None:
    """Return why a file cannot be opened, None if it can."""
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
