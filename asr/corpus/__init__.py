"""A corpus transcribed by any number of workers, on any machines, that share nothing but a folder.

A manifest is divided into shards; a worker does the shard that it is told to do, whatever others do.  What is done is
known by its position in the manifest, so that a worker which is started again goes on behind what it left, and the
number of shards may change.  Two workers at one shard do the work twice, and the result is there once.  Nobody claims
anything: a claim would need a lock, and a lock of a process that was killed a time at which it no longer counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.corpus.manifest import Manifest, Shard, is_manifest, read_manifest
from asr.corpus.parts import Parts
from asr.corpus.processes import Say, side_by_side
from asr.corpus.settings import Settings
from asr.errors import DataError
from asr.files import write_atomically
from asr.recognizer import OnDone, Source
from asr.transcript import Failure, Transcript
from asr.writers import TranscriptWriter, from_line

__all__ = ["Report", "Settings", "Shard", "is_manifest", "read_manifest", "transcribe_corpus"]

WHOLE = Shard(1, 1)
HYPOTHESES, FAILED, PARTS = "hyp.jsonl", "failed.jsonl", "parts"


@dataclass(frozen=True)
class Report:
    """What became of a shard or, once all are done, of the corpus.

    recordings, failed: of it.  unfinished: shards that are not done.  hypotheses: the file with all texts, if none is
    missing; the failures stand beside it.
    """

    recordings: int
    failed: int
    unfinished: tuple[Shard, ...] = ()
    hypotheses: Path | None = None


def transcribe_corpus(
    manifest: Path,
    output: Path,
    settings: Settings,
    *,
    shard: Shard = WHOLE,
    workers: int = 1,
    retry_failed: bool = False,
    writer: TranscriptWriter | None = None,
    say: Say | None = None,
    on_done: OnDone | None = None,
) -> Report:
    """Transcribe what is left to do of a shard of a manifest and, when all shards are done, write `output`/hyp.jsonl.

    manifest: cuts or recordings of lhotse (.jsonl, .jsonl.gz), or paths of audio files, one a line (.txt).  hyp.jsonl
    has a transcript a line, in the order of the manifest, and failed.jsonl the recordings that could not be
    transcribed, with reasons, which are not tried again unless `retry_failed`.  workers: processes that share the
    cores of this machine.  writer: gets each transcript, too, when all are there.  say: gets a line for each failure.
    on_done: as for Recognizer.transcribe_sources.
    Raises DataError for a manifest that cannot be used, and if `output` was begun with another one or other settings.
    """
    corpus = read_manifest(manifest)
    parts = Parts(output / PARTS, settings.job(corpus))
    work = Work(corpus, settings, parts, retry_failed)
    say, on_done = say or _ignore, on_done or _ignore
    if workers > 1:
        side_by_side(work, shard.split(workers), say, on_done)
    else:
        work(shard, 0, say, on_done)
    span = corpus.span(shard)
    missing = list(parts.gaps(range(len(corpus))))
    if not missing:
        return _merge(corpus, parts, output, writer)
    failed = sum(row.failed for row in parts.rows(span))
    return Report(len(span), failed, tuple(corpus.shards_in(missing, shard.count)))


@dataclass(frozen=True)
class Work:
    """What is to be done, how, and where the results are."""

    manifest: Manifest
    settings: Settings
    parts: Parts
    retry_failed: bool

    def __call__(self, shard: Shard, number: int, say: Say, on_done: OnDone) -> None:
        """Transcribe what is left of a shard, as the worker of that number on this machine."""
        span = self.manifest.span(shard)
        todo = self._todo(span)
        if len(todo):
            recognizer = self.settings.recognizer(number)
            turn = _Turn(self.manifest, todo, recognizer.rate)
            with self.parts.writing(span) as write:
                for result in self.settings.transcribe(recognizer, turn, on_done):
                    if isinstance(result, Failure):
                        say(result.reason)
                    elif not result.complete:  # Ctrl-C came; what is there of it does not count
                        continue
                    write(turn.position_of(result), result)
        self.parts.finish(span)

    def _todo(self, span: range) -> NDArray[np.intp]:
        """The positions within a span that have no result."""
        done_N = np.zeros(len(span), bool)
        for row in self.parts.rows(span):
            done_N[row.position - span.start] = not (row.failed and self.retry_failed)
        return np.flatnonzero(~done_N) + span.start


class _Turn:
    """Sources of the recordings at these positions, each made when it is asked for."""

    def __init__(self, manifest: Manifest, positions_N: NDArray[np.intp], rate: int) -> None:
        self.manifest, self.positions_N, self.rate = manifest, positions_N, rate
        self._under_way: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.positions_N)

    def __iter__(self) -> Iterator[Source]:
        for position, source in self.manifest.sources(self.positions_N.tolist(), self.rate):
            self._under_way[source.id] = position
            yield source

    def position_of(self, result: Transcript | Failure) -> int:
        """Where the recording of a result stands in the manifest; asked once."""
        return self._under_way.pop(result.id)


def _merge(corpus: Manifest, parts: Parts, output: Path, writer: TranscriptWriter | None) -> Report:
    """All results in the order of the manifest, each once; the files appear when they are whole."""
    count = failed = 0
    taken: set[str] = set()
    with (
        write_atomically(output / FAILED) as failed_path,
        write_atomically(output / HYPOTHESES) as path,
        failed_path.open("wb") as failures,
        path.open("wb") as texts,
    ):
        for count, row in enumerate(parts.rows(range(len(corpus))), start=1):
            if row.position != count - 1:
                raise _lost(corpus, parts, count - 1)
            (failures if row.failed else texts).write(row.json + b"\n")
            failed += row.failed
            if writer is not None:
                name = _free_name(
                    corpus.form.stem(json.loads(row.json)["id"]), taken
                )  # a failure's, too: all keep theirs
                if not row.failed:
                    writer.write(from_line(row.json), name)
        if count < len(corpus):
            raise _lost(corpus, parts, count)
    return Report(count, failed, hypotheses=output / HYPOTHESES)


def _free_name(stem: str, taken: set[str]) -> str:
    """The first of `stem`, `stem`-2, `stem`-3 ... that is not taken; now it is."""
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    return name


def _lost(corpus: Manifest, parts: Parts, position: int) -> DataError:
    what = f"the result of recording {position + 1} of {len(corpus)} is gone, though it was there"
    return DataError(f"{parts.folder}: {what}; transcribe again without a shard")


def _ignore(*_: object) -> None:
    """Tell nobody."""
