"""Times of words: the recordings of STM and CTM as one stream of words each, and the times in JSON and cuts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from asr.errors import DataError
from asr.scoring import timed
from asr.scoring.columns import Columns
from asr.scoring.formats import open_texts, suffix
from asr.scoring.rows import Form, PathLike, Row, Source
from asr.scoring.tcwer import Stretch
from asr.text.scripts import one_after_another

Spoken = Sequence[Stretch]
_Recordings = Mapping[tuple[str, str], list[Stretch]]  # by file and channel
_Spans = Mapping[tuple[str, str], list[tuple[float, float]]]
_STRETCHES = "stretches"
_KINDS: dict[str, Form] = {".stm": "stm", ".ctm": "ctm"}

Opener = Callable[[PathLike, Literal["ids", "lines"] | None, Columns], Source]


def opener(*paths: PathLike) -> Opener:
    """Return a function that opens a file; STM and CTM among `paths` yield one row per recording, with its stretches.

    A recording is a file, or `file_channel` if either side has several channels of the file.  CTM words in segments
    that an STM excludes from scoring are left out.
    """
    found: dict[PathLike, _Recordings] = {}
    ignored: _Spans = {}
    for path in paths:
        if suffix(path) == ".stm":
            found[path], ignored = _of_stm(path)
    for path in paths:
        if suffix(path) == ".ctm":
            found[path] = _of_ctm(path, ignored)
    channels: dict[str, set[str]] = defaultdict(set)
    for recordings in found.values():
        own: dict[str, set[str]] = defaultdict(set)
        for file, channel in recordings:
            own[file].add(channel)
        for file, of_file in own.items():
            channels[file] |= of_file if len(of_file) > 1 else set()

    def rows(recordings: _Recordings) -> Iterator[Row]:
        for (file, channel), stretches in recordings.items():
            stretches.sort(key=lambda s: s.start_s)
            text = one_after_another(stretch.text for stretch in stretches if stretch.text)
            yield Row(f"{file}_{channel}" if channels[file] else file, text, None, {_STRETCHES: stretches})

    def open_one(path: PathLike, form: Literal["ids", "lines"] | None, columns: Columns) -> Source:
        if path not in found:
            return open_texts(path, form=form, columns=columns)
        return Source(str(path), _KINDS[suffix(path)], partial(rows, found[path]))

    return open_one


def _of_stm(path: PathLike) -> tuple[_Recordings, _Spans]:
    found: dict[tuple[str, str], list[Stretch]] = defaultdict(list)
    ignored: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for segment in timed.segments(path):
        place = segment.file, segment.channel
        if segment.scored:
            found[place].append(Stretch(segment.text, segment.start_s, segment.end_s))
        else:
            ignored[place].append((segment.start_s, segment.end_s))
    return found, ignored


def _of_ctm(path: PathLike, ignored: _Spans) -> _Recordings:
    found: dict[tuple[str, str], list[Stretch]] = defaultdict(list)
    for word in timed.timed_words(path):
        place = word.file, word.channel
        if not any(start_s <= word.middle_s < end_s for start_s, end_s in ignored.get(place, ())):
            found[place].append(Stretch(word.text, word.start_s, word.start_s + word.duration_s))
    return found


def spoken(row: Row) -> Spoken:
    """Return the timed words of a row, or its timed segments, or those of a cut; raise DataError if it has no times.

    A text without words needs no times.
    """
    fields = row.fields
    if _STRETCHES in fields:
        return list(fields[_STRETCHES])
    try:
        found = [stretch for part in _parts(fields) for stretch in _of_part(part)]
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        found = []
    if row.text.split() and not any(stretch.text.split() for stretch in found):
        raise DataError(
            f"utterance {row.id!r} has no times, which tcwer needs: give STM, CTM, cuts, or JSONL whose words or "
            'segments have a "start" and an "end"'
        )
    return found


def _parts(fields: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    if "tracks" in fields:
        return sorted(_of_cut(fields["tracks"]), key=lambda part: part["start"])
    return [{"words": fields["words"]}] if fields.get("words") else list(fields.get("segments") or ())


def _of_cut(tracks: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the supervisions of a cut, with the words of their alignment if any; times are relative to the cut."""
    for track in tracks:
        offset_s = track.get("offset", 0.0)
        for part in track["cut"].get("supervisions", ()):
            start_s = offset_s + part["start"]
            words = [
                {"text": symbol, "start": offset_s + begin_s, "end": offset_s + begin_s + duration_s}
                for symbol, begin_s, duration_s, *_ in (part.get("alignment") or {}).get("word", ())
                if symbol.strip()
            ]
            text = part.get("text") or ""
            yield {"text": text, "start": start_s, "end": start_s + part["duration"], "words": words if text else []}


def _of_part(part: Mapping[str, Any]) -> list[Stretch]:
    """Return a segment as one stretch, or as a stretch for each of its words if it has them."""
    words = part.get("words")
    if words:
        return [Stretch(_text(word), _time(word, "start"), _time(word, "end")) for word in words]
    return [Stretch(_text(part), _time(part, "start"), _time(part, "end"))]


def _text(part: Mapping[str, Any]) -> str:
    text = part["text"] if "text" in part else part["word"]
    return text if isinstance(text, str) else str(text)


def _time(part: Mapping[str, Any], name: str) -> float:
    time_s = float(part[name] if name in part else part[f"{name}_s"])
    if not 0 <= abs(time_s) < float("inf"):
        raise ValueError
    return time_s
