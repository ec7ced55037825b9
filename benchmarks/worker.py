"""Measuring in a process of its own, so that engines share neither memory nor settings."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from asr.errors import AsrError


class Worker:
    """A new process that runs a generator; each time it is asked, up to the next value.

    daemon: the process ends with this one, but can't have processes of its own.
    """

    def __init__(self, name: str, values: Callable[..., Iterator[Any]], *args: Any, daemon: bool = True) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_answer, args=(theirs, values, args), daemon=daemon)
        self._process.start()
        theirs.close()  # so that the pipe closes when the process ends

    def next(self) -> Any:
        """Return the generator's next value.  Raises AsrError if it has failed or its process has ended."""
        try:
            self._pipe.send("next")
            value, error = self._pipe.recv()
        except (EOFError, ConnectionError):
            raise AsrError(f"{self.name}: its process ended before it answered; was there enough memory?") from None
        if error is not None:
            raise AsrError(f"{self.name}: {error}")
        return value

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()


def _answer(pipe: Connection, values: Callable[..., Iterator[Any]], args: tuple[Any, ...]) -> None:
    warnings.filterwarnings("ignore")
    try:
        made = values(*args)
        while pipe.recv():
            pipe.send((next(made), None))
    except (EOFError, ConnectionError):
        return
    except Exception as e:
        pipe.send((None, f"{type(e).__name__}: {e}"))
