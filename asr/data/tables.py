"""Conversion of a table of audio files and their texts to a manifest of cuts."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource

from asr.audio import AudioLength, audio_length
from asr.data.cuts import SLACK_S
from asr.errors import AsrError, ConfigError, DataError, printable
from asr.files import MANIFESTS, json_writer, make_folder
from asr.files.tables import IDS, PATHS, TEXTS, find_name, read_table
from asr.progress import OnDone

_USUAL = {
    "path": PATHS,
    "text": TEXTS,
    "id": IDS,
    "language": ("language", "lang", "locale"),
    "speaker": ("speaker", "speaker_id", "client_id"),
    "start": ("start", "start_s"),
    "end": ("end", "end_s"),
}
_TIMEOUT_S = 600.0  # files that libsndfile does not read are decoded to be measured, and may be long
_LENGTHS_KEPT = 1000  # a file may appear in several rows

OnProblem = Callable[[str], None]


class Clip(NamedTuple):
    """A row of the table: an audio file or a part of it, and its text.  number: the row's line."""

    number: int
    path: str
    text: str
    id: str | None
    language: str | None
    speaker: str | None
    start_s: float | None
    end_s: float | None


@dataclass
class Made:
    """Counts and problems of a conversion."""

    cuts: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def make_manifest(
    table: Path, out: Path, *, language: str | None = None, on_problem: OnProblem, on_done: OnDone
) -> Made:
    """Write the usable rows of a table (.csv, .tsv) atomically as a manifest.

    Relative paths are relative to the table's folder.  language: that of rows without one.  on_problem: gets a line for
    each row that is left out, as it is found.  on_done: gets the number of rows done and their total.
    Raises DataError if the table cannot be read, its ids are not unique or no row can be used, ConfigError if `out` is
    not named like a manifest.
    """
    if not out.name.endswith(MANIFESTS):
        raise ConfigError(f"{printable(out)}: a manifest's name ends in .jsonl.gz or .jsonl")
    made = Made()

    def note(problem: str) -> None:
        made.problems.append(problem)
        on_problem(problem)

    clips = _with_ids(table, list(_clips(table, note)))
    make_folder(out.parent)
    with json_writer(out) as write:
        for done, cut in enumerate(_cuts(table, clips, language, note), start=1):
            if cut is not None:
                write(cut.to_dict())
                made.cuts, made.seconds = made.cuts + 1, made.seconds + cut.duration
            on_done(done, len(clips))
        if not made.cuts:
            raise DataError(f"{table}: no row can be used" if made.problems else f"{table}: the table has no rows")
    return made


def _cuts(table: Path, clips: Iterable[Clip], language: str | None, note: OnProblem) -> Iterator[MonoCut | None]:
    """Yield the cut of each row, or None for a row that cannot be used, whose problem goes to `note`."""
    length_of = lru_cache(_LENGTHS_KEPT)(_length)
    for clip in clips:
        path = os.path.abspath(table.parent / clip.path)
        try:
            length = length_of(path)
            if isinstance(length, str):
                raise DataError(length)
            yield _cut(clip, path, length, language)
        except DataError as e:
            note(f"{table}:{clip.number}: {e}")
            yield None


def _length(path: str) -> AudioLength | str:
    """Return the length of a file, or the reason why it cannot be measured."""
    try:
        return audio_length(path, timeout_s=_TIMEOUT_S)
    except AsrError as e:
        return str(e)


def _cut(clip: Clip, path: str, length: AudioLength, language: str | None) -> MonoCut:
    start_s, end_s = clip.start_s or 0.0, clip.end_s
    if max(start_s, end_s or 0.0) > length.duration_s + SLACK_S:
        raise DataError(
            f"{printable(path)}: lasts {length.duration_s:.2f} s, but the row goes to {end_s or start_s:g} s"
        )
    end_s = length.duration_s if end_s is None else min(end_s, length.duration_s)
    if not start_s < end_s:
        raise DataError(f"{printable(path)}: the row starts at {start_s:g} s and ends at {end_s:g} s")
    assert clip.id is not None
    # Written as one channel, which stands for the mean of all channels of the file.
    source = AudioSource("file", [0], path)
    recording = Recording(clip.id, [source], length.sample_rate_hz, length.samples, length.duration_s)
    spoken = SupervisionSegment(
        clip.id, clip.id, 0.0, end_s - start_s, 0, clip.text, clip.language or language, clip.speaker
    )
    return MonoCut(clip.id, start_s, end_s - start_s, 0, supervisions=[spoken], recording=recording)


def _clips(table: Path, note: OnProblem) -> Iterator[Clip]:
    read = read_table(table)
    found = {key: find_name(read.names, usual) for key, usual in _USUAL.items()}
    for key in ("path", "text"):
        if found[key] is None:
            there = printable(", ".join(read.names)) or "none"
            others = ", ".join(name for name in _USUAL[key] if name != key)
            raise DataError(f"{table}:1: no column {key} (or {others}); there are: {there}")
    for number, row in read.rows:
        try:
            read.check(row)
            values = dict(zip(read.names, row, strict=True))
            yield _clip(number, {key: values[name].strip() for key, name in found.items() if name is not None})
        except DataError as e:
            note(f"{table}:{number}: {e}")


def _clip(number: int, values: Mapping[str, str]) -> Clip:
    path = values["path"]
    if not path:
        raise DataError("no path")
    id, language, speaker = (values.get(name) or None for name in ("id", "language", "speaker"))
    start_s, end_s = (_seconds(path, name, values.get(name)) for name in ("start", "end"))
    return Clip(number, path, " ".join(values["text"].split()), id, language, speaker, start_s, end_s)


def _seconds(path: str, name: str, text: str | None) -> float | None:
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise DataError(printable(f"{path}: its {name}, {text[:40]}, is no number of seconds"))
    return seconds


def _with_ids(table: Path, clips: Sequence[Clip]) -> list[Clip]:
    """Give rows without an id one: the file's name if that is unique, else its path.

    The id of a part of a file ends with its start in milliseconds.  Raises DataError for duplicate ids.
    """
    names = [_names(clip) for clip in clips]
    counts = Counter(name for each in names for name in dict.fromkeys(each))
    lines: dict[str, int] = {}
    named = []
    for clip, each in zip(clips, names, strict=True):
        id = clip.id or next((name for name in each if counts[name] == 1), each[-1])
        if id in lines:
            remedy = "ids must differ" if clip.id else "give the table a column id"
            raise DataError(f"{table}:{clip.number}: {printable(id)} stands in line {lines[id]}, too: {remedy}")
        lines[id] = clip.number
        named.append(clip._replace(id=id))
    return named


def _names(clip: Clip) -> list[str]:
    """Return the ids that a row may be given, shortest first."""
    whole = clip.start_s is None and clip.end_s is None
    part = "" if whole else f"-{round(1000 * (clip.start_s or 0.0)):09d}"
    names = Path(clip.path).stem, os.path.splitext(clip.path)[0], clip.path
    return [clip.id] if clip.id else [f"{name}{part}" for name in names]
