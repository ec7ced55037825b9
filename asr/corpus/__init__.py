"""Transcription of a corpus by any number of workers, on any machines, that share only a folder.

A manifest is divided into shards, and each worker does the shard that it is given, independently of the others.
Finished work is identified by its position in the manifest, so that a restarted worker continues where it stopped, and
the number of shards may change.  If two workers do the same shard, the work is done twice, but each result is used
once.  Workers never claim work: that would need locks, and the locks of killed processes would need a timeout.
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
from asr.files import make_folder, write_atomically
from asr.progress import OnDone
from asr.recognizer import Source
from asr.transcript import Failure, Transcript
from asr.writers import TranscriptWriter, from_line

__all__ = ["Report", "Settings", "Shard", "is_manifest", "read_manifest", "transcribe_corpus"]

WHOLE = Shard(1, 1)
HYPOTHESES, FAILED, PARTS = "hyp.jsonl", "failed.jsonl", "parts"


@dataclass(frozen=True)
class Report:
    """The result of a shard or, once all shards are done, of the corpus.

    recordings, failed: counts for the shard or the corpus.  unfinished: shards that are not done.  hypotheses: the file
    with all texts once the corpus is complete; the list of failures is beside it.
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
    """Transcribe the rest of a shard of a manifest and, when all shards are done, write `output`/hyp.jsonl.

    hyp.jsonl has one transcript per line, in the order of the manifest; failed.jsonl lists the recordings that could
    not be transcribed, with reasons.

    manifest: lhotse cuts or recordings (.jsonl, .jsonl.gz), or paths of audio files, one per line (.txt).
    workers: number of processes that share the cores of this machine.
    retry_failed: whether to try failed recordings again.
    writer: also receives each transcript, once all shards are done.
    say: receives a line for each failure.
    on_done: as for Recognizer.transcribe_sources.

    Raises DataError for an unusable manifest, and if `output` was begun with another manifest or other settings.
    """
    corpus = read_manifest(manifest)
    make_folder(output)  # and remove what a merge left that was killed
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
    """The work on a corpus: what to do, with which settings, and where the results are."""

    manifest: Manifest
    settings: Settings
    parts: Parts
    retry_failed: bool

    def __call__(self, shard: Shard, number: int, say: Say, on_done: OnDone) -> None:
        """Transcribe the rest of a shard, as worker `number` on this machine."""
        span = self.manifest.span(shard)
        todo = self._todo(span)
        if len(todo):
            recognizer = self.settings.recognizer(number)
            turn = _Turn(self.manifest, todo, recognizer.rate)
            with self.parts.writing(span) as write:
                for result in self.settings.transcribe(recognizer, turn, on_done):
                    if isinstance(result, Failure):
                        say(result.reason)
                    elif not result.complete:  # interrupted by Ctrl-C; a partial result does not count
                        continue
                    write(turn.position_of(result), result)
        self.parts.finish(span)

    def _todo(self, span: range) -> NDArray[np.intp]:
        """Return the positions within a span that still need a result."""
        done_N = np.zeros(len(span), bool)
        for row in self.parts.rows(span):
            done_N[row.position - span.start] = not (row.failed and self.retry_failed)
        return np.flatnonzero(~done_N) + span.start


class _Turn:
    """The sources of the recordings at these positions, each created on demand."""

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
        """Return the position of a result's recording in the manifest; works once per recording."""
        return self._under_way.pop(result.id)


def _merge(corpus: Manifest, parts: Parts, output: Path, writer: TranscriptWriter | None) -> Report:
    """Write all results, each once and in the order of the manifest; the files are written atomically."""
    count = failed = 0
    taken: dict[str, int] = {}
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
                )  # for failures, too, so that names never shift
                if not row.failed:
                    writer.write(from_line(row.json), name)
        if count < len(corpus):
            raise _lost(corpus, parts, count)
    return Report(count, failed, hypotheses=output / HYPOTHESES)


def _free_name(stem: str, taken: dict[str, int]) -> str:
    """Return the first of `stem`, `stem`-2, `stem`-3 ... that is not taken, and add it to `taken`.

    taken: for each name, the number up to which the names made from it are taken.
    """
    name, number = stem, taken.get(stem, 1)
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken[stem] = number
    taken.setdefault(name, 1)
    return name


def _lost(corpus: Manifest, parts: Parts, position: int) -> DataError:
    what = f"the result of recording {position + 1} of {len(corpus)} is gone, though it was there"
    return DataError(f"{parts.folder}: {what}; transcribe again without a shard")


def _ignore(*_: object) -> None:
    """Do nothing: the default callback."""
