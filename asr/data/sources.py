"""Sources from which cuts are read a line at a time: a manifest, or a Shar folder that lhotse wrote.

A Shar folder holds its cuts in cuts.000000.jsonl.gz and their audio, in the same order, in recording.000000.tar, then
in those of number 000001 and so on.  lhotse's own reader loads the audio with each cut; here only the headers of a tar
are read and each cut records where its audio is, so that thousands of cuts can be shuffled and the audio is read by the
worker that needs it.
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
from typing import Any, NamedTuple, cast

from lhotse import Recording
from lhotse.cut import Cut, MixedCut, MixTrack, PaddingCut
from lhotse.cut.data import DataCut
from lhotse.serialization import deserialize_item

from asr.audio import Audio, open_audio_within
from asr.errors import DataError, printable
from asr.files import MANIFESTS, Place, Tar, TarMember, files_in, filled_lines, is_folder

_MOST_MANIFEST_BYTES = 1 << 20


class StoredAudio(NamedTuple):
    """An audio file in a tar; the member's name is only used in messages."""

    archive: Place
    member: TarMember

    def open(self, **part: Any) -> Audio:
        """Decode it, or a part of it, given by the keyword arguments of `open_audio`.  Raises AudioError."""
        name, start, size = self.member
        return open_audio_within(self.archive, start, size, name=name, **part)


@dataclass(slots=True)
class Line:
    """An unparsed line of a manifest, which takes less memory than its cut."""

    path: Place
    number: int
    text: bytes

    def cut(self) -> Cut:
        """Parse it.  Raises DataError, which names the file and the line."""
        return self._parsed({})

    def fail(self, problem: str) -> DataError:
        """Return an error that names the file and the line."""
        return DataError(f"{printable(self.path)}:{self.number}: {printable(problem)[:200]}")

    def _parsed(self, changes: dict[str, Any]) -> Cut:
        try:
            return parse_cut(self.text, changes)
        except DataError as e:
            raise self.fail(str(e)) from None


def parse_cut(line: bytes, changes: Mapping[str, Any] = MappingProxyType({})) -> Cut:
    """Parse one line of a manifest of cuts or of recordings; a recording becomes a cut of its whole length.

    changes: fields that replace those of the line.  Raises DataError if it is neither a cut nor a recording.
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
    """Return what is wrong with a cut in fields that lhotse does not check, None if nothing is."""
    if not isinstance(cut, Cut):
        return f"a {type(cut).__name__}, neither cut nor recording of lhotse"
    if not isinstance(cut.id, str) or not _is_number(cut.duration) or cut.duration < 0:
        return "its id is not text, or its duration not a number"
    for supervision in cut.supervisions:
        for name in ("text", "language"):
            if not isinstance(value := getattr(supervision, name), str | None):
                return f"a supervision's {name} is {value!r}, which is no text"
        if not _is_number(supervision.start):
            return f"a supervision's start is {supervision.start!r}, which is no number"
    return next(filter(None, map(_clip_problem, clips_of(cut))), None)


def clips_of(cut: Cut) -> list[MixTrack]:
    """Return the tracks of a cut without padding; a plain cut is a single track."""
    tracks = cut.tracks if isinstance(cut, MixedCut) else [MixTrack(cut)]
    return [track for track in tracks if not isinstance(track.cut, PaddingCut)]


def _clip_problem(track: MixTrack) -> str | None:
    """Return what is wrong with the times of a clip or with the manifest of its recording, None if nothing is."""
    clip, recording = track.cut, track.cut.recording
    times = {"a track's offset": track.offset, "its start": clip.start, "its duration": clip.duration}
    if recording is not None:
        times["the duration of its recording"] = recording.duration
    for name, value in times.items():
        if not _is_number(value):
            return f"{name} is {value!r}, which is no number"
    if track.offset < 0:
        return f"a track's offset is {track.offset:g}, less than 0"
    for source in () if recording is None else recording.sources:
        if not isinstance(source.source, str):
            return f"the source of its recording is {source.source!r}, which is no text"
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


@dataclass(slots=True)
class StoredLine(Line):
    """A line of a Shar folder's cuts, with the place of its audio and the manifest of its recording."""

    audio: StoredAudio
    recording: bytes

    def cut(self) -> Cut:
        """Parse it, with the tar's member as the source of its audio in place of whatever its manifest names."""
        try:
            recording = json.loads(self.recording)
            channels = [c for source in recording["sources"] for c in source["channels"]]
            recording["sources"] = [{"type": "shar", "channels": channels, "source": ""}]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise self.fail(f"the manifest of {self.audio.member.name} is not that of a recording") from None
        cut = self._parsed({"recording": recording})
        if not isinstance(cut, DataCut) or cut.recording is None:
            raise self.fail(f"a {type(cut).__name__} has no recording of its own")
        if _stem(self.audio.member.name) != cut.id:
            raise self.fail(f"cut '{cut.id}' stands beside the recording {self.audio.member.name} in the tar")
        cut.recording.sources[0].source = cast(Any, self.audio)  # lhotse passes any object through
        return cut


class Manifest:
    """A manifest, .jsonl or .jsonl.gz, whose cuts name audio files; it is always read in its own order."""

    def __init__(self, path: Place) -> None:
        self.path = path
        if isinstance(path, Path) and not path.is_file():
            raise DataError(f"{path}: no such manifest; prepare the corpus first (see the recipe's README)")
        if not path.name.endswith(MANIFESTS):
            raise DataError(f"{path}: not a manifest, which ends in .jsonl or .jsonl.gz")

    def lines(self) -> Iterator[Line]:
        """Yield every cut's line, in order."""
        return _lines(self.path)

    def entries(self, draw: random.Random | None = None) -> Iterator[Line]:
        """Yield every cut's line, in order, as there are no shards."""
        return _lines(self.path)


class Shard(NamedTuple):
    """One manifest of a Shar folder and the tar beside it."""

    cuts: Place
    recordings: Place

    def entries(self) -> Iterator[Line]:
        """Yield its cuts' lines with the place of their audio.  Raises DataError or ArchiveError naming the file."""
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
    """A Shar folder: shards of cuts and recordings, numbered without gaps; other fields are ignored."""

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
        """Yield every cut's line, in order, without looking for its audio."""
        for shard in self.shards:
            yield from _lines(shard.cuts)

    def entries(self, draw: random.Random | None = None) -> Iterator[Line]:
        """Yield every cut's line with the place of its audio; the order of shards is drawn by `draw`, if given."""
        shards = list(self.shards)
        if draw is not None:
            draw.shuffle(shards)
        for shard in shards:
            yield from shard.entries()


def open_source(path: Place) -> Manifest | Shar:
    """Open a manifest or a Shar folder.  Raises DataError naming it if it is neither."""
    return Shar(path) if is_folder(path) else Manifest(path)


def _shards(files: Iterable[Place], field: str, suffix: str) -> dict[int, Place]:
    """Return the files of a field by shard number; a file without a number counts as number 0."""
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
    """Return the name of a tar's member without its suffix: the id of its cut."""
    return name.rpartition(".")[0]
