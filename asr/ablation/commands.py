"""The programs that an ablation starts: their threads, their output, and ending all of them at a stop."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from asr.errors import AsrError

_PATIENCE_S = 10.0
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class CommandError(AsrError):
    """A program failed, or was ended from outside (`killed`); the message is the last line that it wrote."""

    def __init__(self, message: str, killed: bool) -> None:
        super().__init__(message)
        self.killed = killed


class Commands:
    """Runs programs of this package, from any thread, until `stop`.

    lock: descriptor of the folder's lock, which the programs inherit, so that one left behind keeps the folder locked.
    """

    def __init__(self, lock: int) -> None:
        self._lock, self._guard = lock, threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, words: Sequence[str], log: Path, threads: int) -> None:
        """Run `python -m WORDS...` to its end and append its output to `log`.  Raises CommandError if it fails."""
        environment = os.environ | dict.fromkeys(_THREADS, str(threads))
        with log.open("ab") as out:
            began = out.tell()
            with self._guard:
                if self._stopped:
                    raise CommandError("stopped", killed=True)
                process = subprocess.Popen(
                    [sys.executable, "-m", *words],
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, pass_fds=[self._lock],
                )  # fmt: skip
                self._running.add(process)
            status = process.wait()
            self._running.discard(process)
        if status:
            killed = status < 0 or status == 130 or self._stopped
            raise CommandError(_last_line(log, began) or f"exit status {status}", killed)

    def stop(self) -> None:
        """End all running programs, and refuse to start more."""
        with self._guard:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _last_line(log: Path, began: int) -> str:
    with log.open("rb") as file:
        file.seek(began)
        lines = file.read().decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last.removeprefix("asr: ")[:500]


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold a folder's lock and yield its descriptor, for the programs that are started to hold it, too.

    Raises AsrError if another ablation, or a program that one left behind, is at work in the folder.
    """
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AsrError(f"{folder}: another asr ablate, or a training that it left, is still at work") from None
        yield file.fileno()
