"""Recordings in progress: opened in turn, cut into windows and pooled, so that few are in memory at a time.

Shapes: N samples.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from asr.errors import AsrError
from asr.progress import OnDone
from asr.recognizer.decoded import Decoded
from asr.windows import Window, WindowMaker

# Seconds of audio in memory at a time: batching by length needs a choice, but a recording or a folder may be endless.
POOL_S = 900.0
FIRST_POOL_S = 240.0  # small, so that the first texts appear early
MOST_WAITING = 64  # waiting recordings, above which one without windows ends a pool early: its line would wait, too


class Opened(NamedTuple):
    """An open recording: its blocks (N,) at the front end's rate, and its length in seconds, if known."""

    blocks: Iterable[Tensor]
    duration_s: float | None


class Source(NamedTuple):
    """A recording to transcribe: its id, a function that opens it when its turn comes, and its language, if known."""

    id: str
    open: Callable[[], Opened]
    language: str | None = None


@dataclass
class Recording:
    """A recording in progress.

    expected_s: its length, 0 if unknown.  heard_s: seconds read so far.  whole: whether it has been read to its end.
    problem: why it failed.  windows: start and end of each window, in seconds.  found: the result for each window, None
    until it is decoded.
    """

    id: str
    language: str | None
    expected_s: float = 0.0
    heard_s: float = 0.0
    whole: bool = False
    problem: str | None = None
    windows: list[tuple[float, float]] = field(default_factory=list)
    found: list[Decoded | None] = field(default_factory=list)


class Piece(NamedTuple):
    """A window to decode.

    number: its index in the recording.  heard_s: seconds of audio read since the previous piece.
    """

    recording: Recording
    number: int
    samples_N: Tensor
    heard_s: float


class Reader:
    """Reader that opens sources one after the other; `cut` divides those longer than `window_s`.

    waiting: recordings that have been opened but not finished.
    """

    def __init__(self, rate: int, window_s: float, cut: WindowMaker) -> None:
        self.rate, self.window_s, self.cut = rate, window_s, cut
        self.waiting: deque[Recording] = deque()
        self._heard_s = self._in_pieces_s = 0.0  # sums over all recordings
        self._count = 0
        self._expected_s = 0.0  # sum over the recordings before the last one
        self._last: Recording | None = None

    def pools(self, sources: Iterable[Source]) -> Iterator[list[Piece]]:
        """Yield pools of about POOL_S of windows; an empty pool after each window lets the caller report results."""
        pool: list[Piece] = []
        pooled, most_s = 0, min(FIRST_POOL_S, POOL_S)
        for source in sources:
            recording = self._begin(source.id, source.language)
            for window in self._windows(source, recording):
                pool.append(self._piece(recording, window))
                pooled += len(window.samples_N)
                if pooled > most_s * self.rate:
                    yield pool
                    pool, pooled, most_s = [], 0, POOL_S
                yield []
            recording.whole = True
            if not recording.found and len(self.waiting) > MOST_WAITING:
                yield pool
                pool, pooled = [], 0
            yield []
        yield pool

    def finished(self) -> Iterator[Recording]:
        """Remove and yield, in order, the recordings that are decoded to their end."""
        while self.waiting and self.waiting[0].whole and None not in self.waiting[0].found:
            yield self.waiting.popleft()

    @property
    def mean_s(self) -> float:
        """Mean length of the recordings opened so far, in seconds."""
        if self._last is None:
            return 0.0
        return (self._expected_s + max(self._last.expected_s, self._last.heard_s)) / self._count

    def _begin(self, id: str, language: str | None) -> Recording:
        self._expected_s, self._count = self.mean_s * self._count, self._count + 1
        self._last = Recording(id, language)
        self.waiting.append(self._last)
        return self._last

    def _piece(self, recording: Recording, window: Window) -> Piece:
        piece = Piece(recording, len(recording.found), window.samples_N, self._heard_s - self._in_pieces_s)
        self._in_pieces_s = self._heard_s
        recording.found.append(None)
        recording.windows.append((window.start_s, window.start_s + len(window.samples_N) / self.rate))
        return piece

    def _windows(self, source: Source, recording: Recording) -> Iterator[Window]:
        """Yield the windows of a recording; an AsrError is stored in its `problem`."""
        try:
            opened = source.open()
            recording.expected_s = opened.duration_s or 0.0
            blocks = self._listen(opened.blocks, recording)
            head: list[Tensor] = []
            for block_N in blocks:
                head.append(block_N)
                if sum(map(len, head)) > self.window_s * self.rate:
                    yield from self.cut(_chain(head, blocks))
                    break
            else:
                if any(map(len, head)):
                    yield Window(0.0, torch.cat(head))
        except AsrError as e:
            recording.problem = str(e)

    def _listen(self, blocks: Iterable[Tensor], recording: Recording) -> Iterator[Tensor]:
        for block_N in blocks:
            seconds = len(block_N) / self.rate
            recording.heard_s += seconds
            self._heard_s += seconds
            yield block_N


class Progress:
    """Reports the seconds of audio done and an estimate of the total."""

    def __init__(self, reader: Reader, count: int, on_done: OnDone | None) -> None:
        self.reader, self.count, self.on_done = reader, count, on_done
        self._done_s = 0.0

    def add(self, pieces: Iterable[Piece]) -> None:
        """Count pieces that have been decoded, and report."""
        self._done_s += sum(piece.heard_s for piece in pieces)
        if self.on_done is not None:
            self.on_done(self._done_s, self.reader.mean_s * self.count)


def _chain(head: list[Tensor], rest: Iterator[Tensor]) -> Iterator[Tensor]:
    while head:
        yield head.pop(0)
    yield from rest
