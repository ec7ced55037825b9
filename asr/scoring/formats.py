"""Readers of texts by file suffix: JSONL and lhotse cuts, tables, sclite's formats, subtitles, plain text.

A source opens its file only when its rows are requested and streams them, so files may be of any length.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from asr.errors import DataError
from asr.files.tables import DELIMITERS, PATHS, read_table
from asr.scoring import timed
from asr.scoring.columns import Columns
from asr.scoring.rows import Form, Ids, PathLike, Row, Source, lines
from asr.tasks import language_code
from asr.text.scripts import one_after_another

# What distinguishes a Kaldi-style id ("1089-134686-0000", "en/vm-goodbye", "spk_utt") from a sentence's first word.
_ID_LIKE = re.compile(r"[\d_/]")
_TRN = re.compile(r"(?P<text>.*)\((?P<id>[^()\s]+)\)\s*")

_SPEAKER_END = re.compile("[-_]")  # ends the speaker in a TRN id, as for sclite's `-i spu_id`
_SEGMENTS = "start\tend\ttext"  # the first line of the .tsv of `asr transcribe`
_ANY = Columns()


def open_texts(path: PathLike, *, form: Literal["ids", "lines"] | None = None, columns: Columns = _ANY) -> Source:
    """Return the texts of a file, whose suffix tells its format; `asr.scoring.compare` lists the formats.

    form: of plain text; None: guess it.
    """
    name = os.fspath(path)
    kind = suffix(path)
    if kind in (".jsonl", ".json"):
        return Source(name, "json", lambda: _from_json(name, columns))
    if kind == ".tsv" and is_one_text(name):
        return Source(name, "subtitles", lambda: _segments(name))
    if kind in (".csv", ".tsv"):
        return Source(name, "table", lambda: _from_table(name, columns))
    readers: dict[str, tuple[Form, Callable[[PathLike], Iterator[Row]]]] = {
        ".trn": ("trn", _from_trn),
        ".stm": ("stm", timed.read_stm),
        ".ctm": ("ctm", timed.read_ctm),
        ".srt": ("subtitles", timed.read_cues),
        ".vtt": ("subtitles", timed.read_cues),
    }
    if kind in readers:
        found, read = readers[kind]
        return Source(name, found, lambda: read(name))
    if name.lower().endswith((".ass", ".ssa")):
        raise DataError(f"{name}: ASS and SSA are not scored; ffmpeg converts them to .srt")
    if (form or ("ids" if _has_ids(name) else "lines")) == "ids":
        return Source(name, "ids", lambda: _from_ids(name))
    return Source(name, "lines", lambda: (Row(str(number), line) for number, line in lines(name)))


def suffix(path: PathLike) -> str:
    """Return the suffix in lower case, ignoring `.gz`; '' for a suffix that names no known format."""
    end = os.path.splitext(os.fspath(path).lower().removesuffix(".gz"))[1]
    return end if end in (".jsonl", ".json", ".csv", ".tsv", ".trn", ".stm", ".ctm", ".srt", ".vtt") else ""


def is_one_text(path: PathLike) -> bool:
    """Return whether all texts of a file belong to one recording: subtitles, or the .tsv of `asr transcribe`."""
    kind = suffix(path)
    return kind in (".srt", ".vtt") or (kind == ".tsv" and [line for _, line in islice(lines(path), 1)] == [_SEGMENTS])


def is_one_recording(path: PathLike) -> bool:
    """Return whether a file is a .json of a single line, as `asr transcribe` writes for one recording."""
    return suffix(path) == ".json" and sum(bool(line.strip()) for _, line in islice(lines(path), 2)) == 1


def joined(source: Source) -> Source:
    """Join all texts of a source into one."""
    return replace(source, rows=lambda: iter([Row("all", one_after_another(row.text for row in source.rows()))]))


def _has_ids(path: PathLike) -> bool:
    """Return whether the lines begin with distinct words that all look like ids."""
    ids = Ids()
    for _, line in lines(path):
        first = line.split(maxsplit=1)[:1]
        if first and not _ID_LIKE.search(first[0]):
            return False
        if first:
            ids.add(first[0])
    return bool(len(ids)) and ids.all_different()


def _from_ids(path: PathLike) -> Iterator[Row]:
    for _, line in lines(path):
        fields = line.split(maxsplit=1)
        if fields:
            yield Row(fields[0], fields[1] if len(fields) > 1 else "")


def _from_trn(path: PathLike) -> Iterator[Row]:
    for number, line in lines(path):
        if not line.strip() or line.startswith(";;"):
            continue
        if (match := _TRN.fullmatch(line)) is None:
            raise DataError(f"{os.fspath(path)}:{number}: a line of .trn ends with the id in parentheses")
        timed.refuse_alternatives(path, number, match["text"])
        fields = {"speaker": _SPEAKER_END.split(match["id"], maxsplit=1)[0]}
        yield Row(match["id"], match["text"].strip(), None, fields)


def _segments(path: PathLike) -> Iterator[Row]:
    """Yield the segments of a .tsv of `asr transcribe`, numbered from 1."""
    for number, line in islice(lines(path), 1, None):
        fields = line.split("\t", 2)
        if len(fields) < 3:
            raise DataError(f"{os.fspath(path)}:{number}: needs start, end and text with tabs between them")
        yield Row(str(number - 1), fields[2])


def _from_table(path: PathLike, columns: Columns) -> Iterator[Row]:
    """Yield the rows of a .csv or .tsv; unlike `asr cuts`, scoring leaves none out."""
    table = read_table(Path(path))
    where = f"{os.fspath(path)}:1: columns separated by {DELIMITERS[table.delimiter]}"
    id_name, text_name = columns.among(table.names, "column", where)
    id_at, text_at = table.names.index(id_name), table.names.index(text_name)
    for number, row in table.rows:
        try:
            table.check(row)
        except DataError as e:
            raise DataError(f"{os.fspath(path)}:{number}: {e}") from None
        fields = dict(zip(table.names, row, strict=True))
        yield _checked(columns.id_of(id_name, row[id_at]), row[text_at], fields.get("language") or None, fields)


def _from_json(path: PathLike, columns: Columns) -> Iterator[Row]:
    """Yield the rows of JSONL; the first object that is not a cut decides which keys are read.

    The object of a .json of a single line needs no id: the file's name stands for it, as in openai-whisper's JSON.
    """
    name = os.fspath(path)
    lone = is_one_recording(path)
    keys: tuple[str, str] | None = None
    for number, line in lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if "supervisions" in row or "tracks" in row:
                yield of_cut(row, columns.code)
                continue
            if lone:
                row.setdefault(PATHS[-1], name.removesuffix(".gz"))  # the last key among those that an id is read from
            keys = keys or columns.among(row.keys(), "key", f"{name}:{number}")
            yield _checked(columns.id_of(keys[0], row[keys[0]]), row[keys[1]], row.get("language"), row)
        except (ValueError, RecursionError):
            raise DataError(f"{name}:{number}: not a JSON object on one line") from None
        except (AttributeError, KeyError, TypeError):
            needs = " and ".join(f'"{key}"' for key in keys or ("id", "text"))
            raise DataError(f"{name}:{number}: needs {needs} as strings, or a lhotse cut") from None


def _checked(id: Any, text: Any, language: Any, fields: Mapping[str, Any]) -> Row:
    if not (isinstance(id, str | int) and isinstance(text, str) and isinstance(language, str | None)):
        raise TypeError
    return Row(str(id), text, language and language_code(language), fields)


def of_cut(row: Mapping[str, Any], code: str | None = None) -> Row:
    """Convert a cut, given as plain JSON, to a row.

    lhotse itself is not used: importing it takes seconds, longer than most scoring runs.
    code: language whose translations to return instead of the transcripts.
    """
    tracks = row.get("tracks") or [{"cut": row}]
    spoken = [
        (track.get("offset", 0.0) + part["start"], part)
        for track in tracks
        for part in track["cut"].get("supervisions", ())
    ]
    spoken.sort(key=lambda s: s[0])
    parts = [part for _, part in spoken]
    texts = [part.get("text") if code is None else _translation(row["id"], part, code) for part in parts]
    text = one_after_another(text for text in texts if text)
    fields: dict[str, Any] = {"duration": row.get("duration"), **(row.get("custom") or {})}
    fields["tracks"] = tracks  # holds the times, for tcWER
    for key in ("speaker", "gender", "language"):
        values = {part.get(key) for part in parts}
        fields[key] = values.pop() if len(values) == 1 else None  # None if the supervisions disagree
    for part in parts if len(parts) == 1 else ():
        fields = {**(part.get("custom") or {}), **fields}
    return _checked(row["id"], text, code or fields["language"], fields)


def _translation(id: Any, part: Mapping[str, Any], code: str) -> Any:
    translations = (part.get("custom") or {}).get("translations") or {}
    if code not in translations:
        raise DataError(f"cut {id!r} has no translation into {code}")
    return translations[code]
