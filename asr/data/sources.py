"""Where cuts are read from, a line at a time: a manifest, or a folder that lhotse wrote as Shar.

A Shar folder holds its cuts in cuts.000000.jsonl.gz and their audio, in the same order, in recording.000000.tar; then
come those of 000001.  lhotse's own reader takes audio into memory with each cut; here only the headers of a tar are
read, and a cut knows where its audio stands, so that thousands of cuts can be shuffled, and audio is read by the worker
that needs it.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, cast

from lhotse import Recording
from lhotse.cut import Cut
from lhotse.cut.data import DataCut
from lhotse.serialization import deserialize_item

from asr.audio import Audio, open_audio_within
from asr.errors import DataError, printable
from asr.files import MANIFESTS, Place, Tar, TarMember, files_in, filled_lines, is_folder

_MOST_MANIFEST_BYTES = 1 << 20


class StoredAudio(NamedTuple):
    """An audio file in a tar; its name is for messages, no path."""

    archive: Place
    member: TarMember

    def open(self, **part: Any) -> Audio:
        """Decode it, or what `open_audio` takes by these names.  Raises AudioError."""
        name, start, size = self.member
        return open_audio_within(self.archive, start, size, name=name, **part)


@dataclass(slots=True)
class Line:
    """A cut as it stands in a file: cheaper to keep than the cut."""

    path: Place
    number: int
    text: bytes

    def cut(self) -> Cut:
        """Parse it.  Raises DataError naming file and line."""
        return self._parsed({})

    def fail(self, problem: str) -> DataError:
        """One line that names the file and the line in it."""
        return DataError(f"{printable(self.path)}:{self.number}: {printable(problem)[:200]}")

    def _parsed(self, changes: dict[str, Any]) -> Cut:
        try:
            return parse_cut(self.text, changes)
        except DataError as e:
            raise self.fail(str(e)) from None


def parse_cut(line: bytes, changes: Mapping[str, Any] = MappingProxyType({})) -> Cut:
    """Read one line of a manifest of cuts, or of recordings, each of which is a cut.

    changes: fields in place of what the line has.  Raises DataError if it is neither.
    """
    try:
        item = deserialize_item({**json.loads(line), **changes})
        cut = item.to_cut() if isinstance(item, Recording) else item
        problem = _problem(cut)
    except Exception as e:  # lhotse raises whatever its parsers raise
        raise DataError(
            f"neither cut nor recording of lhotse: {type(e).__name__}: {' '.join(str(e).split())}"
        ) from None
    if problem is not None:
        raise DataError(problem)
    return cast(Cut, cut)


def _problem(cut: object) -> str | None:
    """What is wrong with what lhotse takes as it comes."""
    if not isinstance(cut, Cut):
        return f"a {type(cut).__name__}, neither cut nor recording of lhotse"
    if not isinstance(cut.id, str) or not _is_number(cut.duration) or cut.duration < 0:
        return "its id is no text, or its duration none"
    for supervision in cut.supervisions:
        for name in ("text", "language"):
            if not isinstance(value := getattr(supervision, name), str | None):
                return f"a supervision's {name} is {value!r}, which is no text"
        if not _is_number(supervision.start):
            return f"a supervision's start is {supervision.start!r}, which is no number"
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


@dataclass(slots=True)
class StoredLine(Line):
    """A cut of a Shar folder with where its audio stands, and what lhotse wrote of that."""

    audio: StoredAudio
    recording: bytes

    def cut(self) -> Cut:
        """Parse it; whatever its manifest names as the source of its audio is the member of the tar instead."""
        try:
            recording = json.loads(self.recording)
            channels = [c for source in recording["sources"] for c in source["channels"]]
            recording["sources"] = [{"type": "shar", "channels": channels, "source": ""}]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise self.fail(f"the manifest of {self.audio.member.name} is none of a recording") from None
        cut = self._parsed({"recording": recording})
        if not isinstance(cut, DataCut) or cut.recording is None:
            raise self.fail(f"a {type(cut).__name__} has no recording of its own")
        if _stem(self.audio.member.name) != cut.id:
            raise self.fail(f"cut '{cut.id}' stands beside the recording {self.audio.member.name} in the tar")
        cut.recording.sources[0].source = cast(Any, self.audio)  # lhotse hands on whatever stands there
        return cut


class Source(Protocol):
    """Cuts on disk, or behind a URL."""

    path: Place

    def lines(self) -> Iterator[Line]:
        """Every cut, in order, without looking for its audio."""

    def entries(self, draw: random.Random | None = None) -> Iterator[Line]:
        """Every cut with its audio; shards in an order that is drawn, or in their own."""


class Manifest:
    """A manifest, .jsonl or .jsonl.gz, whose cuts name files; its order is its own."""

    def __init__(self, path: Place) -> None:
        self.path = path
        if isinstance(path, Path) and not path.is_file():
            raise DataError(f"{path}: no such manifest; prepare the corpus first (see the recipe's README)")
        if not path.name.endswith(MANIFESTS):
            raise DataError(f"{path}: not a manifest, which ends in .jsonl or .jsonl.gz")

    def lines(self) -> Iterator[Line]:
        return _lines(self.path)

    def entries(self, draw: random.Random | None = None) -> Iterator[Line]:
        return _lines(self.path)


class Shard(NamedTuple):
    """One manifest of a Shar folder and the tar beside it."""

    cuts: Place
    recordings: Place

    def entries(self) -> Iterator[Line]:
        """Its cuts, each with its audio.  Raises DataError or ArchiveError naming the file that is wrong."""
        with Tar(self.recordings) as tar:
            members = iter(tar)
            for line in _lines(self.cuts):
                audio, manifest = next(members, None), next(members, None)
                if audio is None or manifest is None:
                    raise tar.fail(f"ends before line {line.number} of {self.cuts.name}")
                if manifest.name.endswith(".nometa"):
                    raise tar.fail(f"line {line.number} of {self.cuts.name} has no recording", audio.name)
                if manifest.name != _stem(audio.name) + ".json":
                    raise tar.fail(f"'{printable(manifest.name)}' follows, not the manifest of a recording", audio.name)
                where, recording = StoredAudio(self.recordings, audio), tar.read(manifest, _MOST_MANIFEST_BYTES)
                yield StoredLine(line.path, line.number, line.text, where, recording)
            if (extra := next(members, None)) is not None:
                raise tar.fail(f"is not in {self.cuts.name}", extra.name)


class Shar:
    """A Shar folder: shards of cuts and recordings, numbered without a gap; other fields are not looked at."""

    def __init__(self, path: Place) -> None:
        self.path = path
        files = files_in(path)
        cuts, recordings = _shards(files, "cuts", r"\.jsonl(\.gz)?"), _shards(files, "recording", r"\.tar")
        if not cuts:
            raise DataError(f"{path}: not a Shar folder: it holds no cuts.000000.jsonl.gz")
        if not recordings:
            raise DataError(
                f"{path}: no recording.000000.tar; write audio, too: lhotse shar export --audio flac CUTS OUT"
            )
        found = sorted(cuts.keys() | recordings.keys())
        for number in range(found[0], found[-1] + 1):
            for name, there in ((f"cuts.{number:06d}.jsonl.gz", cuts), (f"recording.{number:06d}.tar", recordings)):
                if number not in there:
                    raise DataError(f"{path}: {name} is missing")
        self.shards = [Shard(cuts[number], recordings[number]) for number in found]

    def lines(self) -> Iterator[Line]:
        for shard in self.shards:
            yield from _lines(shard.cuts)

    def entries(self, draw: random.Random | None = None) -> Iterator[Line]:
        shards = list(self.shards)
        if draw is not None:
            draw.shuffle(shards)
        for shard in shards:
            yield from shard.entries()


def open_source(path: Place) -> Source:
    """The cuts of a manifest or a Shar folder.  Raises DataError naming it."""
    return Shar(path) if is_folder(path) else Manifest(path)


def _shards(files: Iterable[Place], field: str, suffix: str) -> dict[int, Place]:
    """The files of a field by their numbers; one without a number counts as number 0."""
    found: dict[int, Place] = {}
    for path in files:
        if match := re.fullmatch(rf"{field}(\.(?P<number>\d{{1,9}}))?{suffix}", path.name):
            number = int(match["number"] or 0)
            if found.setdefault(number, path) != path:
                raise DataError(f"{path}: the same shard as {found[number].name}")
    return found


def _lines(path: Place) -> Iterator[Line]:
    return (Line(path, number, text) for number, text in filled_lines(path))


def _stem(name: str) -> str:
    """The name of a tar's member without its suffix, which is the id of its cut."""
    return name.rpartition(".")[0]
