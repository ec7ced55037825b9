"""Files of texts by their suffix: JSONL and lhotse cuts, tables, sclite's formats, subtitles, plain text.

A source only opens its file when its rows are asked for, so that files of any length go by.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, islice
from typing import Any, Literal

from asr.errors import DataError
from asr.scoring import timed
from asr.scoring.columns import Columns, stem
from asr.scoring.rows import Form, Ids, PathLike, Row, Source, lines
from asr.text.scripts import one_after_another

# What tells a Kaldi-style id ("1089-134686-0000", "en/vm-goodbye", "spk_utt") from the first word of a sentence.
_ID_LIKE = re.compile(r"[\d_/]")
_TRN = re.compile(r"(?P<text>.*)\((?P<id>[^()\s]+)\)\s*")

_SPEAKER_END = re.compile("[-_]")  # of an id of TRN, as sclite has it for `-i spu_id`
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_SEGMENTS = "start\tend\ttext"  # how the .tsv of `asr transcribe` begins
_ANY = Columns()


def open_texts(path: PathLike, *, form: Literal["ids", "lines"] | None = None, columns: Columns = _ANY) -> Source:
    """The texts of a file, whose suffix tells what it is; see `asr.scoring.compare` for the forms.

    form: of plain text, where it shall not be guessed.
    """
    name = os.fspath(path)
    kind = suffix(path)
    if kind == ".jsonl":
        return Source(name, "json", lambda: _from_json(name, columns))
    if kind == ".json":
        return Source(name, "json", lambda: _transcripts(name, columns))
    if kind == ".tsv" and is_one_text(name):
        return Source(name, "subtitles", lambda: _segments(name))
    if kind in (".csv", ".tsv"):
        return Source(name, "table", lambda: _from_table(name, columns, kind))
    readers: dict[str, tuple[Form, Callable[[PathLike], Iterator[Row]]]] = {
        ".trn": ("trn", _from_trn),
        ".stm": ("stm", timed.read_stm),
        ".ctm": ("ctm", timed.read_ctm),
        ".srt": ("subtitles", timed.read_subtitles),
        ".vtt": ("subtitles", timed.read_subtitles),
    }
    if kind in readers:
        found, read = readers[kind]
        return Source(name, found, lambda: read(name))
    if (form or ("ids" if _has_ids(name) else "lines")) == "ids":
        return Source(name, "ids", lambda: _from_ids(name))
    return Source(name, "lines", lambda: (Row(str(number), line) for number, line in lines(name)))


def suffix(path: PathLike) -> str:
    """The suffix in lower case, without that of gzip; '' where it says nothing of the form."""
    end = os.path.splitext(os.fspath(path).lower().removesuffix(".gz"))[1]
    return end if end in (".jsonl", ".json", ".csv", ".tsv", ".trn", ".stm", ".ctm", ".srt", ".vtt") else ""


def is_one_text(path: PathLike) -> bool:
    """Whether all that a file holds is said in one recording: subtitles, or the segments of `asr transcribe`'s .tsv."""
    kind = suffix(path)
    return kind in (".srt", ".vtt") or (kind == ".tsv" and [line for _, line in islice(lines(path), 1)] == [_SEGMENTS])


def is_one_recording(path: PathLike) -> bool:
    """Whether a file is a .json of a single line, as `asr transcribe` writes one of a recording."""
    return suffix(path) == ".json" and sum(bool(line.strip()) for _, line in islice(lines(path), 2)) == 1


def joined(source: Source) -> Source:
    """All of a source's texts as one."""
    return replace(source, rows=lambda: iter([Row("all", one_after_another(row.text for row in source.rows()))]))


def _has_ids(path: PathLike) -> bool:
    """Whether the first words of the lines are all different, and each like an id."""
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
            raise DataError(f"{os.fspath(path)}:{number}: a line of .trn ends with the id in round brackets")
        timed.refuse_alternatives(path, number, match["text"])
        fields = {"speaker": _SPEAKER_END.split(match["id"], maxsplit=1)[0]}
        yield Row(match["id"], match["text"].strip(), None, fields)


def _segments(path: PathLike) -> Iterator[Row]:
    """Rows of the .tsv that `asr transcribe` writes, numbered from 1."""
    for number, line in islice(lines(path), 1, None):
        fields = line.split("\t", 2)
        if len(fields) < 3:
            raise DataError(f"{os.fspath(path)}:{number}: needs start, end and text with tabs between them")
        yield Row(str(number - 1), fields[2])


def _transcripts(path: PathLike, columns: Columns) -> Iterator[Row]:
    """Rows of .json, an object a line; of the path that `asr transcribe` writes as the id the file's stem stays."""
    for row in _from_json(path, columns):
        ours = columns.id is None and row.fields.keys() >= {"id", "segments"}
        yield row._replace(id=stem(row.id)) if ours else row


def _from_table(path: PathLike, columns: Columns, kind: str) -> Iterator[Row]:
    """Rows of .csv, quoted as RFC 4180 says, or of .tsv, where a quotation mark is a character as any other.

    What parts columns of .csv is a comma, a semicolon or a tab: what parts the first line into most.
    """
    name = os.fspath(path)
    rows = (f"{line}\n" for _, line in lines(path))
    first = next(rows, "")
    delimiter = max(_DELIMITERS, key=first.count) if kind == ".csv" else "\t"
    quoting: Any = csv.QUOTE_MINIMAL if kind == ".csv" else csv.QUOTE_NONE
    table = csv.reader(chain([first], rows), delimiter=delimiter, quoting=quoting, strict=True)
    try:
        head = next(table, [])
        id_name, text_name = columns.among(head, "column", f"{name}:1: columns parted by {_DELIMITERS[delimiter]}")
        id_at, text_at = head.index(id_name), head.index(text_name)
        for row in table:
            if row and len(row) != len(head):
                raise DataError(f"{name}:{table.line_num}: {len(row)} columns, but the first line names {len(head)}")
            if row:
                fields = dict(zip(head, row, strict=True))
                yield Row(columns.id_of(id_name, row[id_at]), row[text_at], fields.get("language") or None, fields)
    except csv.Error as e:
        raise DataError(f"{name}:{table.line_num}: {e}") from None


def _from_json(path: PathLike, columns: Columns) -> Iterator[Row]:
    """Rows of JSON, an object a line; the first that is no cut decides which keys are read."""
    name = os.fspath(path)
    keys: tuple[str, str] | None = None
    for number, line in lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if "supervisions" in row or "tracks" in row:
                yield of_cut(row, columns.code)
                continue
            keys = keys or columns.among(row.keys(), "key", f"{name}:{number}")
            yield _checked(columns.id_of(keys[0], row[keys[0]]), row[keys[1]], row.get("language"), row)
        except (ValueError, RecursionError):
            raise DataError(f"{name}:{number}: not a JSON object on one line") from None
        except (AttributeError, KeyError, TypeError):
            needs = " and ".join(f'"{key}"' for key in keys or ("id", "text"))
            raise DataError(f"{name}:{number}: needs {needs} as strings, or a lhotse cut") from None


def _checked(id: Any, text: Any, language: Any, fields: Mapping[str, Any]) -> Row:
    if not (isinstance(id, str) and isinstance(text, str) and isinstance(language, str | None)):
        raise TypeError
    return Row(id, text, language, fields)


def of_cut(row: Mapping[str, Any], code: str | None = None) -> Row:
    """Read a cut as plain JSON: lhotse itself takes seconds to import, which is longer than most scores.

    code: of the language whose translations are wanted in place of what is said.
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
    fields["tracks"] = tracks  # with the times of what is said, for those who need them
    for key in ("speaker", "gender", "language"):
        values = {part.get(key) for part in parts}
        fields[key] = values.pop() if len(values) == 1 else None  # of two speakers in a cut, none for certain
    for part in parts if len(parts) == 1 else ():
        fields = {**(part.get("custom") or {}), **fields}
    return _checked(row["id"], text, code or fields["language"], fields)


def _translation(id: Any, part: Mapping[str, Any], code: str) -> Any:
    translations = (part.get("custom") or {}).get("translations") or {}
    if code not in translations:
        raise DataError(f"cut {id!r} has no translation into {code}")
    return translations[code]
