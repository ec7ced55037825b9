"""Kill the process at its N-th write: Python runs this file at its start if this folder is on PYTHONPATH.

A write is any call that opens, creates, renames or removes a path that contains one of the strings in KILL_UNDER, or
changes its mode.  With KILL_AT=0 nothing is killed, and the file KILL_LOG gets a line with the arguments of each write.
"""

from __future__ import annotations

import os
import signal
import sys

_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod"}


def _watch(at: int, under: list[str], log: str) -> None:
    count, busy = 0, False

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal count, busy
        if event not in _EVENTS or busy or not any(text in str(args[:2]) for text in under):
            return
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        if log:
            busy = True
            with open(log, "a") as f:
                print(args[:2], file=f)
            busy = False

    sys.addaudithook(hook)


if "KILL_AT" in os.environ:  # popped, so that only this process is killed, not its children
    at, under, log = (os.environ.pop(name, "") for name in ("KILL_AT", "KILL_UNDER", "KILL_LOG"))
    _watch(int(at), under.split(os.pathsep), log)
