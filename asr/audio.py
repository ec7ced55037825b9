"""Audio files in, samples out: `open_audio` is the only way audio gets in.

The bytes of a file are never parsed in this process. A child, started once and kept, decodes them
(asr/_decoder.py); it may be killed, has a memory limit, and answers with plain numbers.

Shapes: N samples.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr._decoder import END, HEADER, SAMPLES
from asr.errors import AudioError, printable

TIMEOUT_S = 60.0
MAX_BYTES = 2 << 30
_START_TIMEOUT_S = 60.0
_SCRIPT = os.path.abspath(Path(__file__).with_name("_decoder.py"))


@dataclass(frozen=True, eq=False)
class Audio:
    """A recording: `samples_N` mono float32, nominally within -1 and 1, and the file's own rate in hertz."""

    samples_N: NDArray[np.float32]
    sample_rate_hz: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples_N) / self.sample_rate_hz


def open_audio(
    path: str | os.PathLike[str],
    *,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    timeout_s: float = TIMEOUT_S,
    max_bytes: int = MAX_BYTES,
) -> Audio:
    """Decode a file that libsndfile or ffmpeg reads, channels averaged, at its own rate.

    `offset_s` and `duration_s` pick a part, in whole samples, so that adjoining parts tile the recording; a
    part that reaches past the end is shorter. With ffmpeg a part costs decoding from the start.
    Raises AudioError, one line that names the file, when it is missing, not a regular file, not readable,
    empty, not audio, without samples, silent (every sample zero: only when the whole is read), not finite,
    longer than `max_bytes` of float32 samples, or takes longer than `timeout_s` to decode. A file that holds
    less than its header promises is an error too, as half a text would pass for the whole; what promises
    nothing (ADTS, MP3 without a length, a WAV streamed without one) is decoded as far as it goes.
    """
    if not (math.isfinite(offset_s) and 0 <= offset_s < 1e9):
        raise AudioError(f"{printable(path)}: offset_s must be between 0 and 1e9, not {offset_s}")
    if duration_s is not None and not 0 < duration_s < 1e9:
        raise AudioError(f"{printable(path)}: duration_s must be above 0 and below 1e9, not {duration_s}")
    part = {"offset_s": float(offset_s), "duration_s": duration_s, "count_only": False}
    data, answer = _ask(path, timeout_s, max_bytes, part)
    return Audio(np.frombuffer(data, dtype=np.float32), int(answer["rate"]))


def audio_duration(path: str | os.PathLike[str], *, timeout_s: float = TIMEOUT_S) -> float:
    """Length of a file in seconds, from its header where libsndfile trusts that, else counted by decoding.

    Raises AudioError as `open_audio` does, except that samples are not looked at.
    """
    _, answer = _ask(path, timeout_s, 0, {"offset_s": 0.0, "duration_s": None, "count_only": True})
    return float(answer["frames"] / answer["rate"])


def _ask(
    path: str | os.PathLike[str], timeout_s: float, max_bytes: int, part: dict[str, Any]
) -> tuple[bytearray, dict[str, Any]]:
    """Check that the file can be opened at all, then let the decoder have it."""
    name = os.path.abspath(path)
    problem = _problem(name)
    if problem is None:
        request = {
            "path": name,
            "timeout_s": min(timeout_s, 1e6),
            "max_bytes": max_bytes,
            "search_path": os.environ.get("PATH"),
            **part,
        }
        data, answer = _decode(request)
        problem = answer.get("error")
        if problem is None:
            return data, answer
    raise AudioError(f"{printable(path)}: {printable(problem)[:300]}")


def _problem(name: str) -> str | None:
    try:
        status = os.stat(name)
        if stat.S_ISDIR(status.st_mode):
            return "is a directory, not an audio file"
        if not stat.S_ISREG(status.st_mode):
            return "is not a regular file"
        os.close(os.open(name, os.O_RDONLY | os.O_NONBLOCK))
    except FileNotFoundError:
        return "no such file"
    except PermissionError:
        return "permission denied"
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None if status.st_size else "is empty (0 bytes)"


# --- the child ----------------------------------------------------------------------------------------


class _GoneError(Exception):
    """The decoder has closed its pipe."""


class _Patience:
    """Seconds that are left to wait, counted in short looks: while this process is stopped (Ctrl-Z), none pass."""

    LOOK_S = 0.5

    def __init__(self, seconds: float) -> None:
        self.left_s = seconds

    def wait(self, poll: select.poll) -> None:
        """Wait until there is something to read. Raises TimeoutError."""
        while self.left_s > 0:
            look_s, began = min(self.left_s, self.LOOK_S), time.monotonic()
            ready = poll.poll(math.ceil(look_s * 1000))
            self.left_s -= min(time.monotonic() - began, look_s)
            if ready:
                return
        raise TimeoutError


class _Decoder:
    """One child process and the pipes to it."""

    def __init__(self) -> None:
        # -I and -S: no environment, working folder or .pth file decides what the child imports, only the
        # parent's own module folders. One thread for NumPy, whose pool would cost more than the decoding.
        folders = [folder for folder in sys.path if os.path.isabs(folder)]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", _SCRIPT, *folders],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is the parent's to handle, and ffmpeg can be killed along
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.requests, self.answers = self.process.stdin, self.process.stdout
        self.poll = select.poll()
        self.poll.register(self.answers, select.POLLIN)

    def send(self, request: dict[str, Any]) -> None:
        data = json.dumps(request).encode()
        self.requests.write(len(data).to_bytes(4, "little") + data)

    def receive(self, max_bytes: int, patience: _Patience) -> tuple[bytearray, dict[str, Any]]:
        """Read up to the closing message. Raises _GoneError, TimeoutError or, on nonsense, ValueError."""
        samples = bytearray()
        while True:
            kind, size = HEADER.unpack(self._read(HEADER.size, patience))
            if kind == END and size < 1 << 16:
                return samples, dict(json.loads(self._read(size, patience)))
            if kind != SAMPLES or size % 4 or len(samples) + size > max_bytes:
                raise ValueError("broken protocol")
            samples += self._read(size, patience)

    def _read(self, size: int, patience: _Patience) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            patience.wait(self.poll)
            got = os.readv(self.answers.fileno(), [view])
            if not got:
                raise _GoneError
            view = view[got:]
        return data

    def stop(self, grace_s: float = 0.0) -> str:
        """Kill the child, and ffmpeg with it, unless it ends by itself within `grace_s`; how it ended."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(grace_s)
        ended = self.process.returncode
        if ended is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.abandon()
        return signal.Signals(-ended).name if ended is not None and ended < 0 else f"exit status {ended}"

    def abandon(self) -> None:
        """Close the pipes and leave the child alone: in a forked process it belongs to the parent."""
        self.requests.close()
        self.answers.close()
        self.process.returncode = self.process.returncode or 0


_lock = threading.Lock()
_decoder: _Decoder | None = None
_closes_at_exit = False


def _decode(request: dict[str, Any]) -> tuple[bytearray, dict[str, Any]]:
    """Have this process's decoder (started if need be) answer a request; a failure is an answer too."""
    with _lock:
        try:
            if _decoder is None or _decoder.process.poll() is not None:
                _start()
            assert _decoder is not None
            _decoder.send(request)
            # ffmpeg has its own limit inside the child; the child itself is killed a little later.
            return _decoder.receive(request["max_bytes"], _Patience(request["timeout_s"] + 0.5))
        except TimeoutError:
            _close()
            problem = f"took longer than {request['timeout_s']:g} s to decode"
        except (_GoneError, BrokenPipeError):
            problem = f"the decoder crashed on it ({_close(grace_s=1.0)})"
        except ValueError:
            _close()
            problem = "the decoder gave an answer that makes no sense"
        except BaseException:
            _close()  # half an answer may stand in the pipe
            raise
    return bytearray(), {"error": problem}


def _start() -> None:
    global _decoder, _closes_at_exit
    _close()
    _decoder = _Decoder()
    if not _closes_at_exit:
        # Unlike atexit this also runs at the end of a data loader's worker; both end the child by its
        # closed pipe anyway, this one leaves no process behind that nobody has waited for.
        Finalize(None, _close, exitpriority=0)
        _closes_at_exit = True
    try:
        _, hello = _decoder.receive(0, _Patience(_START_TIMEOUT_S))
    except (_GoneError, TimeoutError, ValueError):
        hello = {"error": _close(grace_s=1.0)}
    if "error" in hello:
        _close()
        raise AudioError(f"the process that decodes audio does not start ({printable(hello['error'])})")


def _close(grace_s: float = 0.0) -> str:
    global _decoder
    decoder, _decoder = _decoder, None
    return decoder.stop(grace_s) if decoder is not None else ""


def _after_fork() -> None:
    """Forget the parent's decoder and a lock that some thread of it may hold."""
    global _lock, _decoder, _closes_at_exit
    if _decoder is not None:
        _decoder.abandon()
    _lock, _decoder, _closes_at_exit = threading.Lock(), None, False


os.register_at_fork(after_in_child=_after_fork)
