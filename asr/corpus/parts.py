"""Results of workers in a shared folder: files that are each written by one process, and read together as one.

No process writes to another's file, so no locks are needed, even on file systems shared by several machines.  The
first line of a file describes the job; each further line has a recording's position in the manifest, its status, and
the result as JSON, separated by tabs.  Results remain valid after a worker was killed, did work twice, or used other
shards: if a recording occurs more than once, one line is used.
"""

from __future__ import annotations

import heapq
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any, NamedTuple

from asr.errors import DataError, printable
from asr.files import make_folder, naming
from asr.transcript import Failure, Transcript
from asr.writers import as_line

Job = Mapping[str, Any]
Write = Callable[[int, Transcript | Failure], None]

_PART = re.compile(r"(\d{9,18})-(\d{9,18})\.[0-9a-f]{8}\.part")
_DONE = re.compile(r"(\d{9,18})-(\d{9,18})\.done")
_ROW = re.compile(rb"(\d{1,18})\t(done|failed)\t(.*)", re.DOTALL)
DIGESTS = ("manifest", "model", "phrases", "lm")  # keys whose values are digests


class Row(NamedTuple):
    """The result for a position of the manifest, as JSON; transcripts sort before failures."""

    position: int
    failed: bool
    json: bytes


class Part(NamedTuple):
    """A file with results for positions from `first` up to, but not including, `end`."""

    first: int
    end: int
    path: Path


class Parts:
    """The results of a job in a folder, which is created.  Raises DataError if it holds results of another job."""

    def __init__(self, folder: Path, job: Job) -> None:
        make_folder(folder)
        self.folder, self.job = folder, job
        self.check()

    def check(self) -> None:
        """Raise DataError, one line that names the differences, if a file belongs to another job."""
        for part in self._parts():
            next(self._read(part), None)

    def rows(self, span: range) -> Iterator[Row]:
        """Yield the results within a span in order, one for each recording that has any."""
        parts = [part for part in self._parts() if part.first < span.stop and span.start < part.end]
        for position, rows in groupby(self._merged(parts), key=lambda row: row.position):
            if position in span:
                yield next(rows)

    @contextmanager
    def writing(self, span: range) -> Iterator[Write]:
        """Give a function that writes results within a span, in ascending order, to a new file.

        Each line is flushed at once, so that a killed process loses none.  A file without results is removed.
        """
        path = self.folder / f"{_name(span)}.{secrets.token_hex(4)}.part"
        written = 0

        def put(line: str) -> None:
            file.write(line.encode() + b"\n")
            file.flush()

        def write(position: int, result: Transcript | Failure) -> None:
            nonlocal written
            put(f"{position}\t{'failed' if isinstance(result, Failure) else 'done'}\t{as_line(result)}")
            written += 1

        try:
            with naming(path), path.open("xb") as file:
                put(json.dumps(self.job))
                self.check()  # another job may have begun at the same time
                yield write
                os.fsync(file.fileno())  # before finish() marks the span as done
        finally:
            if not written:
                path.unlink(missing_ok=True)

    def finish(self, span: range) -> None:
        """Mark a span as done: all its recordings have a result."""
        if span:
            (self.folder / f"{_name(span)}.done").touch()

    def gaps(self, span: range) -> Iterator[range]:
        """Yield the parts of a span that no worker has marked as done."""
        reached = span.start
        for first, end, _ in _named(self.folder, _DONE):
            if reached < min(first, span.stop):
                yield range(reached, min(first, span.stop))
            reached = max(reached, end)
        if reached < span.stop:
            yield range(reached, span.stop)

    def _parts(self) -> list[Part]:
        return _named(self.folder, _PART)

    def _merged(self, parts: Iterable[Part]) -> Iterator[Row]:
        """Merge the results of all files in order; a file is open only from its first position to its last."""
        heap: list[tuple[Row, int, Iterator[Row]]] = []

        def push(number: int, rows: Iterator[Row]) -> None:
            if (row := next(rows, None)) is not None:
                heapq.heappush(heap, (row, number, rows))

        def pop() -> Row:
            row, number, rows = heapq.heappop(heap)
            push(number, rows)
            return row

        for number, part in enumerate(parts):
            while heap and heap[0][0].position < part.first:
                yield pop()
            push(number, self._read(part))
        while heap:
            yield pop()

    def _read(self, part: Part) -> Iterator[Row]:
        """Yield the rows of a file up to an incomplete line.  Raises DataError if it belongs to another job."""
        try:
            file = part.path.open("rb")
        except FileNotFoundError:  # removed by its worker, which had no results
            return
        with file:
            lines = (line[:-1] for line in takewhile(lambda line: line.endswith(b"\n"), file))
            head = next(lines, None)
            if head is not None and (other := _differences(self.job, head)):
                hint = "give what it was begun with, or another folder"
                raise DataError(printable(f"{part.path.parent}: begun with {other}; {hint}"))
            free = part.first
            for match in map(_ROW.fullmatch, lines):
                if match is None or not free <= int(match[1]) < part.end:
                    return
                free = int(match[1]) + 1
                yield Row(free - 1, match[2] == b"failed", match[3])


def _name(span: range) -> str:
    return f"{span.start:09}-{span.stop:09}"


def _named(folder: Path, pattern: re.Pattern[str]) -> list[Part]:
    """Return the files with matching names, ordered by position."""
    matches = (pattern.fullmatch(name) for name in os.listdir(folder))
    return sorted(Part(int(m[1]), int(m[2]), folder / m[0]) for m in matches if m)


def _differences(job: Job, head: bytes) -> str:
    """Describe how the job in a file's first line differs from this one; "" if it does not."""
    try:
        theirs = json.loads(head)
        names = [name for name in {**job, **theirs} if job.get(name) != theirs.get(name)]
    except (ValueError, TypeError, RecursionError):
        return "something else"
    shown = [
        f"another {name}" if name in DIGESTS else f"{name} {theirs.get(name)} (now {job.get(name)})" for name in names
    ]
    return ", ".join(shown)
