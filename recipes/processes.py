"""Process many files in parallel."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from asr.errors import AsrError

Task = TypeVar("Task")
Result = TypeVar("Result")


def each(function: Callable[[Task], Result], tasks: Sequence[Task], jobs: int, at_once: int = 1) -> Iterator[Result]:
    """Yield the results of an importable function for each task, in order, computed by `jobs` processes.

    at_once: tasks handed to a process at a time.  Raises: what the function raises; AsrError if a process was killed.
    """
    if jobs == 1:
        yield from map(function, tasks)
        return
    try:
        with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield from pool.map(function, tasks, chunksize=at_once)
    except BrokenProcessPool:
        raise AsrError("a process was killed, perhaps for want of memory: run this again with fewer --jobs") from None
