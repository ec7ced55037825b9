"""Kill the process at its N-th write: Python runs this file at its start if this folder is on PYTHONPATH.

A write is any call that opens for writing, creates, renames or removes a path that contains one of the strings in
KILL_UNDER, or changes its mode.  The signal is SIGKILL, or the number in KILL_WITH.  With KILL_AT=0 nothing is killed,
and the file KILL_LOG gets a line with the arguments of each write.
"""

from __future__ import annotations

import os
import signal
import sys

_EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def _writes(event: str, args: tuple[object, ...]) -> bool:
    if event == "open":  # path, mode, flags
        return isinstance(args[2], int) and bool(args[2] & _WRITING)
    return event in _EVENTS


def _watch(at: int, under: list[str], log: str, with_: int) -> None:
    count, busy = 0, False

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal count, busy
        if busy or not _writes(event, args) or not any(text in str(args[:2]) for text in under):
            return
        count += 1
        if count == at:
            os.kill(os.getpid(), with_)
        if log:
            busy = True
            with open(log, "a") as f:
                print(args[:2], file=f)
            busy = False

    sys.addaudithook(hook)


if "KILL_AT" in os.environ:  # popped, so that only this process is killed, not its children
    names = "KILL_AT", "KILL_UNDER", "KILL_LOG", "KILL_WITH"
    at, under, log, with_ = (os.environ.pop(name, "") for name in names)
    _watch(int(at), under.split(os.pathsep), log, int(with_ or signal.SIGKILL))
