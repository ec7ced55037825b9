"""Worker processes that share the cores of a machine, and its GPUs if it has several."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from asr.corpus.manifest import Shard
from asr.errors import AsrError
from asr.processes import deaf_to_ctrl_c, ending
from asr.progress import OnDone

Say = Callable[[str], None]
Task = Callable[[Shard, int, Say, OnDone], None]


def side_by_side(task: Task, shards: Sequence[Shard], say: Say, on_done: OnDone) -> None:
    """Run `task(shard, number of the process, say, on_done)` for each shard in a process of its own.

    say: receives the messages of all processes.  on_done: receives the seconds done and the total.  Warnings of the
    processes are issued here, so that one that all of them give is shown once.
    If a process raises or is killed, the others continue to their end; then its error is raised, an AsrError if it was
    killed.
    """
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // len(shards))
    running: dict[Connection, tuple[Shard, BaseProcess]] = {}
    try:
        with deaf_to_ctrl_c():
            for number, shard in enumerate(shards):
                ours, theirs = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(
                    target=_work, args=(task, shard, number, threads, theirs), daemon=True
                )
                process.start()
                theirs.close()
                running[ours] = shard, process
        _listen(running, say, on_done)
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()


def _listen(running: dict[Connection, tuple[Shard, BaseProcess]], say: Say, on_done: OnDone) -> None:
    seconds: dict[Connection, tuple[float, float]] = {}
    ended: set[Connection] = set()
    errors: list[Exception] = []
    while open_links := running.keys() - ended:
        for link in wait(list(open_links)):
            assert isinstance(link, Connection)
            try:
                message = link.recv()
            except (EOFError, OSError):
                ended.add(link)
                errors += _loss(*running[link])
                continue
            if isinstance(message, str):
                say(message)
            elif isinstance(message, Warning):
                warnings.warn(message, stacklevel=2)
            elif isinstance(message, Exception):
                errors.append(message)
            else:
                seconds[link] = message
                done_s, total_s = map(sum, zip(*seconds.values(), strict=True))
                on_done(done_s, total_s * len(running) / len(seconds))  # workers not heard from count as average
    if errors:
        raise errors[0]


def _loss(shard: Shard, process: BaseProcess) -> list[Exception]:
    how = ending(process)
    if process.exitcode == 0:
        return []
    return [AsrError(f"the worker of shard {shard} ended with {how}; the same command goes on where it left off")]


def _work(task: Task, shard: Shard, number: int, threads: int, link: Connection) -> None:
    """Run the task of one worker process."""
    torch.set_num_threads(threads)
    warnings.showwarning = lambda message, *_, **__: link.send(UserWarning(" ".join(str(message).split())))
    try:
        task(shard, number, link.send, lambda *seconds: link.send(seconds))
    except (AsrError, OSError) as e:
        if not isinstance(e, BrokenPipeError):  # the parent is gone
            link.send(e)
