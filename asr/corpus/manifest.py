"""Manifests of corpora, with lhotse cuts or recordings or paths of audio files, one per line, and their shards."""

from __future__ import annotations

import hashlib
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.errors import ConfigError, DataError, printable
from asr.files import filled_lines, to_stem
from asr.recognizer import Source
from asr.recognizer.files import file_source


@dataclass(frozen=True)
class Shard:
    """Share `number`, counted from 1, of `count` shares."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse "3/8".  Raises ConfigError if it is not a shard."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ConfigError(f"shard {printable(text)}: give K/N, the K-th of N shares, such as 3/8")
        return cls(int(match[1]), int(match[2]))

    def split(self, count: int) -> list[Shard]:
        """Divide this shard into `count` shards."""
        return [Shard((self.number - 1) * count + i, self.count * count) for i in range(1, count + 1)]

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


class Form(NamedTuple):
    """The format of a manifest's lines.

    read: parses a line into the id and the length of a recording in seconds (1 if unknown).  source: turns a line into
    a source at a given rate.  stem: turns an id into the name for the recording's files, without suffix.
    """

    read: Callable[[bytes], tuple[str, float]]
    source: Callable[[bytes, int], Source]
    stem: Callable[[str], str]


def _read_path(line: bytes) -> tuple[str, float]:
    return os.fsdecode(line), 1.0


def _path_source(line: bytes, rate: int) -> Source:
    return file_source(os.fsdecode(line), rate)


def _read_cut(line: bytes) -> tuple[str, float]:
    from asr.data.sources import parse_cut  # importing lhotse takes seconds, and lists of paths do not need it

    cut = parse_cut(line)
    return cut.id, cut.duration


def _cut_source(line: bytes, rate: int) -> Source:
    from asr.data.sources import parse_cut
    from asr.recognizer.cuts import cut_source

    return cut_source(parse_cut(line), rate)


def _path_stem(id: str) -> str:
    return to_stem(Path(id).stem)


def _cut_stem(id: str) -> str:
    """Turn an id into a file name that is not hidden, replacing characters that it cannot have."""
    name = "".join(c if c.isprintable() and c != "/" else "_" for c in id)
    name = f"_{name[1:]}" if name.startswith(".") else name
    return to_stem(name) or "_"


PATHS, CUTS = Form(_read_path, _path_source, _path_stem), Form(_read_cut, _cut_source, _cut_stem)
FORMS = {".txt": PATHS, ".jsonl": CUTS, ".jsonl.gz": CUTS}


def is_manifest(name: str) -> bool:
    """Return whether a file name is that of a manifest or a list, not of audio."""
    return name.endswith(tuple(FORMS))


@dataclass(frozen=True, eq=False)
class Manifest:
    """A manifest that has been scanned: its digest, and the length of each recording in seconds.

    Only 16 bytes per recording are kept in memory; everything else is read again when its turn comes.
    """

    path: Path
    form: Form
    digest: str
    seconds: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.seconds)

    @cached_property
    def _middles_s(self) -> NDArray[np.float64]:
        return np.asarray(np.cumsum(self.seconds) - self.seconds / 2)

    def span(self, shard: Shard) -> range:
        """Return the recordings of a shard: a contiguous range; all shards have about the same total length."""
        return range(self._end(shard.number - 1, shard.count), self._end(shard.number, shard.count))

    def _end(self, number: int, count: int) -> int:
        if number in (0, count):
            return len(self) if number else 0
        # All machines must get the same result: the order of summation in numpy's sum depends on the processor, that of
        # its cumsum does not.  And the quotients of 2/4 and 4/8 are exactly equal.
        total_s = self._middles_s[-1] + self.seconds[-1] / 2
        return int(np.searchsorted(self._middles_s, total_s * (number / count)))

    def shards_in(self, spans: Sequence[range], count: int) -> Iterator[Shard]:
        """Yield those of `count` shards that contain recordings of these spans."""
        for shard in (Shard(number, count) for number in range(1, count + 1)):
            own = self.span(shard)
            if any(max(own.start, span.start) < min(own.stop, span.stop) for span in spans):
                yield shard

    def sources(self, positions: Iterable[int], rate: int) -> Iterator[tuple[int, Source]]:
        """Yield the positions, which must ascend, each with the source of its recording at `rate` hertz."""
        lines = enumerate(filled_lines(self.path))
        for wanted in positions:
            line = next((line for i, (_, line) in lines if i == wanted), None)
            if line is None:
                raise DataError(printable(f"{self.path}: it has lost lines while it was in use"))
            yield wanted, self.form.source(line, rate)


def read_manifest(path: Path) -> Manifest:
    """Scan a manifest (.jsonl, .jsonl.gz) or a list of audio files (.txt).

    Raises DataError, one line that names file and line, if it is no manifest, missing or empty, if a line is
    neither a cut nor a recording, or if an id occurs twice.
    """
    if not path.is_file():
        raise DataError(printable(f"{path}: no such manifest"))
    form = next((form for suffix, form in FORMS.items() if path.name.endswith(suffix)), None)
    if form is None:
        raise DataError(printable(f"{path}: a manifest's name ends in {' or '.join(FORMS)}"))
    digest, seconds, hashes = hashlib.sha256(), array("d"), array("q")
    for number, line in filled_lines(path):
        try:
            id, length_s = form.read(line)
        except DataError as e:
            raise DataError(printable(f"{path}:{number}: {e}")) from None
        digest.update(line + b"\n")
        seconds.append(length_s)
        hashes.append(hash(id))
    if not seconds:
        raise DataError(printable(f"{path}: the manifest is empty"))
    _refuse_twice(path, form, np.frombuffer(hashes, np.int64))
    return Manifest(path, form, digest.hexdigest(), np.frombuffer(seconds))


def _refuse_twice(path: Path, form: Form, hashes: NDArray[np.int64]) -> None:
    """Raise DataError if an id occurs twice.

    Hashes are compared first, which saves memory for millions of ids; only ids with equal hashes are compared as text.
    """
    ordered = np.sort(hashes)
    doubtful = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    seen: set[str] = set()
    for number, line in filled_lines(path) if doubtful else ():
        id, _ = form.read(line)
        if id in seen:
            raise DataError(printable(f"{path}:{number}: '{id}' is there twice; ids must differ"))
        if hash(id) in doubtful:
            seen.add(id)
