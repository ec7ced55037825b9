"""The child processes that decode: one is kept and shared; a stream has one to itself while it is open."""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from multiprocessing.util import Finalize
from typing import Any, ClassVar

from asr.audio import program
from asr.audio.program import BLOCK_SAMPLES, END, HEADER, SAMPLES, START
from asr.errors import AudioError, printable

_START_TIMEOUT_S = 60.0
_SCRIPT = os.path.abspath(program.__file__)


class GoneError(Exception):
    """The decoder process has closed its pipe."""


class Patience:
    """A time limit, counted in short waits so that time while this process is stopped (Ctrl-Z) does not count."""

    LOOK_S = 0.5

    def __init__(self, seconds: float) -> None:
        self.left_s = seconds

    def wait(self, poll: select.poll) -> None:
        """Wait until there is something to read.  Raises TimeoutError."""
        while self.left_s > 0:
            look_s, began = min(self.left_s, self.LOOK_S), time.monotonic()
            ready = poll.poll(math.ceil(look_s * 1000))
            self.left_s -= min(time.monotonic() - began, look_s)
            if ready:
                return
        raise TimeoutError


class Decoder:
    """A decoding child process and the pipes to it."""

    known: ClassVar[weakref.WeakSet[Decoder]] = weakref.WeakSet()

    def __init__(self) -> None:
        # -I and -S: what the child imports depends only on the parent's module folders, not on the environment, the
        # working folder or .pth files.  One thread for NumPy, whose thread pool would cost more than the decoding.
        folders = [folder for folder in sys.path if os.path.isabs(folder)]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", _SCRIPT, *folders],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # the parent handles Ctrl-C, and ffmpeg can be killed with the child
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.requests, self.answers = self.process.stdin, self.process.stdout
        self.poll = select.poll()
        self.poll.register(self.answers, select.POLLIN)
        Decoder.known.add(self)

    @classmethod
    def started(cls) -> Decoder:
        """Start a decoder and wait until it is ready.  Raises AudioError."""
        decoder = cls()
        try:
            _, hello = decoder.receive(0, Patience(_START_TIMEOUT_S))
        except (GoneError, TimeoutError, ValueError):
            hello = {"error": decoder.stop(grace_s=1.0)}
        except BaseException:
            decoder.stop()
            raise
        if "error" in hello:
            decoder.stop()
            raise AudioError(f"the process that decodes audio does not start ({printable(hello['error'])})")
        return decoder

    def send(self, request: dict[str, Any]) -> None:
        """Send a request; its answer must be read before the next request."""
        data = json.dumps(request).encode()
        self.requests.write(len(data).to_bytes(4, "little") + data)

    def receive(self, max_bytes: int, patience: Patience) -> tuple[bytearray, dict[str, Any]]:
        """Read the samples and the closing message of an answer.  Raises as `message` does."""
        samples = bytearray()
        while True:
            kind, data = self.message(patience)
            if kind == END:
                return samples, dict(json.loads(data))
            if kind != SAMPLES or len(samples) + len(data) > max_bytes:
                raise ValueError("broken protocol")
            samples += data

    def message(self, patience: Patience) -> tuple[bytes, bytearray]:
        """Read a message and return its kind and data.  Raises GoneError, TimeoutError or, if malformed, ValueError."""
        kind, size = HEADER.unpack(self._read(HEADER.size, patience))
        if kind == SAMPLES:
            allowed = size % 4 == 0 and size <= 4 * BLOCK_SAMPLES
        else:
            allowed = kind in (START, END) and size < 1 << 16
        if not allowed:
            raise ValueError("broken protocol")
        return kind, self._read(size, patience)

    def _read(self, size: int, patience: Patience) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            patience.wait(self.poll)
            got = os.readv(self.answers.fileno(), [view])
            if not got:
                raise GoneError
            view = view[got:]
        return data

    def fail(self, error: Exception, limit: str) -> str:
        """Stop a decoder whose answer failed with this error, and return a description of what happened."""
        if isinstance(error, TimeoutError):
            self.stop()
            return f"took longer than {limit}"
        if isinstance(error, (GoneError, BrokenPipeError)):
            return f"the decoder crashed on it ({self.stop(grace_s=1.0)})"
        self.stop()
        return "the decoder gave an answer that makes no sense"

    def stop(self, grace_s: float = 0.0) -> str:
        """Kill the child, and ffmpeg with it, unless it ends by itself within `grace_s`; return how it ended."""
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
        """Close the pipes without ending the child, which in a forked process belongs to the parent."""
        self.requests.close()
        self.answers.close()
        self.process.returncode = self.process.returncode or 0


FAILURES = (GoneError, TimeoutError, BrokenPipeError, ValueError)

_lock = threading.Lock()
_shared: Decoder | None = None
_closes_at_exit = False


def ask(request: dict[str, Any]) -> tuple[bytearray, dict[str, Any]]:
    """Have the shared decoder, started if necessary, answer a request; failures are answers with an "error"."""
    global _shared
    with _lock:
        _ensure()
        assert _shared is not None
        try:
            _shared.send(request)
            # ffmpeg has its own limit inside the child; the child itself is killed a little later.
            return _shared.receive(request["max_bytes"], Patience(request["timeout_s"] + 0.5))
        except FAILURES as error:
            decoder, _shared = _shared, None
            problem = decoder.fail(error, f"{request['timeout_s']:g} s to decode")
        except BaseException:
            _close()  # the rest of an answer may still be in the pipe
            raise
    return bytearray(), {"error": problem}


def borrow() -> Decoder:
    """Return a decoder for one long answer: the shared one if it is idle, else a new one."""
    global _shared
    decoder = None
    if _lock.acquire(blocking=False):
        decoder, _shared = _shared, None
        _lock.release()
    if decoder is not None and decoder.process.poll() is None:
        return decoder
    if decoder is not None:
        decoder.stop()
    return Decoder.started()


def give_back(decoder: Decoder) -> None:
    """Keep a decoder whose answer has ended as the shared one, unless there is one again."""
    global _shared
    kept = False
    if _lock.acquire(blocking=False):
        if _shared is None:
            _shared, kept = decoder, True
            _register()
        _lock.release()
    if not kept:
        decoder.stop()


def _ensure() -> None:
    global _shared
    if _shared is None or _shared.process.poll() is not None:
        _close()
        _shared = Decoder.started()
        _register()


def _register() -> None:
    global _closes_at_exit
    if not _closes_at_exit:
        # Unlike atexit, this also runs when a data loader's worker ends.  The closed pipe would end the child in any
        # case; this also waits for it, so that no zombie process is left.
        Finalize(None, _close, exitpriority=0)
        _closes_at_exit = True


def _close() -> None:
    global _shared
    decoder, _shared = _shared, None
    if decoder is not None:
        decoder.stop()


def _after_fork() -> None:
    """Forget the decoders of the parent, and its lock, which one of its threads may hold."""
    global _lock, _shared, _closes_at_exit
    for decoder in list(Decoder.known):
        decoder.abandon()
    Decoder.known.clear()
    _lock, _shared, _closes_at_exit = threading.Lock(), None, False


os.register_at_fork(after_in_child=_after_fork)
