"""Decoding several batches at once on the cores of a machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from types import TracebackType
from typing import ClassVar

import torch

from asr.recognizer.budget import Item, Result, share_heap

# Matrix products in search are small: two cores do more with a batch each than with one batch together.
WORKERS = 2
_LOCK = Lock()


class Workers:
    """Threads that share the CPU cores, for functions that spend their time in torch; an accelerator gets one thread.

    Inside `with`, the calling thread, too, is limited to the share of one worker.  Several may be open at a time.
    """

    _open: ClassVar[int] = 0  # how many are inside `with`, where torch does not tell the cores
    _cores: ClassVar[int] = 0

    def __init__(self, device: torch.device) -> None:
        with _LOCK:
            self.cores = Workers._cores if Workers._open else torch.get_num_threads()
        self.count = min(WORKERS, self.cores) if device.type == "cpu" else 1

    def __enter__(self) -> Workers:
        share_heap()
        with _LOCK:
            Workers._open, Workers._cores = Workers._open + 1, self.cores
        share = max(1, self.cores // self.count)
        torch.set_num_threads(share)
        self._threads = ThreadPoolExecutor(self.count, "decode", torch.set_num_threads, (share,))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._threads.shutdown(cancel_futures=True)
        torch.set_num_threads(self.cores)
        with _LOCK:
            Workers._open -= 1

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        """Yield each item with its result, in order; items are read in this thread, one ahead of the workers."""
        return (done for done in self.as_read(function, items) if done is not None)

    def as_read(
        self, function: Callable[[Item], Result], items: Iterable[Item | None]
    ) -> Iterator[tuple[Item, Result] | None]:
        """Like map, but an item that is None is no work: it yields the results that are ready, and then None."""
        under_way: deque[tuple[Item, Future[Result]]] = deque()
        for item in items:
            if item is not None:
                under_way.append((item, self._threads.submit(function, item)))
            while under_way and (len(under_way) > self.count or under_way[0][1].done()):
                done, future = under_way.popleft()
                yield done, future.result()
            if item is None:
                yield None
        for done, future in under_way:
            yield done, future.result()
