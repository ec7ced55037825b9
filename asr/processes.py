"""Worker processes that do one task after another, and how Ctrl-C is kept from them."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch

from asr.errors import AsrError

Task = TypeVar("Task")
Result = TypeVar("Result")
OnPart = Callable[[float], None]

_GRACE_S = 5.0  # for a worker to remove what it has half written


@dataclass(frozen=True)
class Lost:
    """Stands for the result of a task whose worker ended before it, as `how` says: "signal 9" or "status 1"."""

    how: str


def in_processes(
    work: Callable[[Task, OnPart], Result], tasks: Sequence[Task], jobs: int, on_part: OnPart
) -> list[Result | Lost]:
    """Return the result of `work(task, on_part)` for each task, in order, computed by `jobs` processes.

    Torch has one thread in each, and with one job, which is done in this process, too: the results are the same for any
    number.  work: picklable.  on_part: receives what the tasks report.  Warnings of the workers are issued here.  A
    worker that dies costs only the task that it was at, which concurrent.futures cannot do: its pool ends as a whole.
    Raises the first AsrError or OSError of a task, and ends all workers then, as after Ctrl-C.
    """
    if min(jobs, len(tasks)) < 2:
        with _one_thread():
            return [work(task, on_part) for task in tasks]
    results: dict[int, Result | Lost] = {}
    todo = deque(range(len(tasks)))
    workers: dict[Connection, BaseProcess] = {}
    busy: dict[Connection, int] = {}
    try:
        while len(results) < len(tasks):
            while todo and len(busy) < jobs:
                idle = [link for link in workers if link not in busy]
                link = idle[0] if idle else _start(work, workers)
                busy[link] = todo.popleft()
                with suppress(OSError):  # it died while it was idle; reading from it tells how
                    link.send(tasks[busy[link]])
            for speaking in wait(list(busy)):
                assert isinstance(speaking, Connection)
                for result in _hear(speaking, workers, on_part):
                    results[busy.pop(speaking)] = result
    finally:
        _end(workers.values())
    return [results[number] for number in range(len(tasks))]


def _hear(link: Connection, workers: dict[Connection, BaseProcess], on_part: OnPart) -> list[Any]:
    """Take a message of a worker; return the result if it is one."""
    try:
        kind, value = link.recv()
    except (EOFError, OSError):
        return [Lost(ending(workers.pop(link)))]
    if kind == "error":
        raise value
    if kind == "part":
        on_part(value)
    elif kind == "warning":
        warnings.warn(value, stacklevel=3)
    return [value] if kind == "result" else []


def ending(process: BaseProcess) -> str:
    """Wait for the end of a process and return how it ended: "signal 9" or "status 1"."""
    process.join()
    status = process.exitcode or 0
    return f"signal {-status}" if status < 0 else f"status {status}"


def _start(work: Callable[[Task, OnPart], Result], workers: dict[Connection, BaseProcess]) -> Connection:
    """Start a worker and add it to `workers`; torch is not safe in a forked process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs), daemon=True)
    with deaf_to_ctrl_c():
        process.start()
    theirs.close()
    workers[ours] = process
    return ours


def _serve(work: Callable[[Task, OnPart], Result], link: Connection) -> None:
    """Do the tasks that come, until the pipe closes because the parent has ended, or SIGTERM comes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by an exception, which removes what is half written
    torch.set_num_threads(1)
    warnings.showwarning = lambda message, *_, **__: link.send(("warning", " ".join(str(message).split())))
    with suppress(EOFError, ConnectionError):
        while True:
            task = link.recv()
            found: tuple[str, object]
            try:
                found = "result", work(task, lambda amount: link.send(("part", amount)))
            except ConnectionError:
                raise
            except (AsrError, OSError) as error:
                found = "error", error
            link.send(found)


def _end(workers: Collection[BaseProcess]) -> None:
    for process in workers:
        process.terminate()
    for process in workers:
        process.join(_GRACE_S)
        process.kill()
        process.join()


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Make processes that are started meanwhile ignore Ctrl-C, which the parent handles."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
