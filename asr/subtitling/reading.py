"""Reading of cues from SubRip, WebVTT and SubStation Alpha files in any encoding, the last with pysubs2."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pysubs2
from pysubs2.exceptions import Pysubs2Error
from pysubs2.formats.substation import SubstationFormat

from asr.errors import DataError, printable
from asr.files.subtitles import LINE_END, TAG, Stray, read_subtitles
from asr.subtitling.cues import Cue, Dropped
from asr.subtitling.encodings import encoding_of, marked_encoding, pages_of
from asr.subtitling.plausibility import problem, read_twice

SUFFIXES = (".srt", ".vtt", ".ass", ".ssa")
COMMENT, DRAWING, KARAOKE, SIGN = "comment", "drawing", "karaoke", "sign"

_HEAD = 10_000  # the characters that tell the format
_MAX_BYTES = 16 << 20  # those of the longest films have a few hundred kB
_BROKEN = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufffd]")
_STYLES = re.compile(r"(\{[^{}]*\})")
_DRAWS = re.compile(r"\\p(\d+)")
_SUNG = re.compile(r"\{[^{}]*\\[kK][fot]?\d")
_PLACED = re.compile(r"\{[^{}]*\\(?:pos|move)\s*\(")


class CueFile(NamedTuple):
    """The contents of a file.

    encoding: the one that it was read with.  dropped: what is no speech by its form.  unread: lines that are no cue.
    """

    cues: list[Cue]
    encoding: str
    dropped: list[Dropped]
    unread: list[Stray]


def read_cues(path: Path, language: str, encoding: str | None = None) -> CueFile:
    """Read the cues of a file in its own order, numbered from 1, with markup and line breaks.

    language: code of its language, which helps to detect an encoding other than UTF-8 (asr.subtitling.encodings) unless
    `encoding` is given.  Raises DataError, naming the file, if it is in none of these formats, has no cue, or is not
    text in that encoding.
    """
    text, used = _decoded(path, language, encoding)
    events, unread = _events(text)
    if not events:
        raise DataError(printable(f"{path}: neither SRT, VTT, ASS nor SSA: there is no cue in it"))
    cues, dropped = _sorted_out(events)
    if wrong := problem(TAG.sub("", "\n".join(cue.text for cue in cues)), language):
        advice = "give the right encoding (--encoding) or language (--language), or repair the file"
        raise DataError(printable(f"{path}: read as {used}, {wrong}; {advice}"))
    return CueFile(cues, used, dropped, unread)


def _events(text: str) -> tuple[list[pysubs2.SSAEvent], list[Stray]]:
    if (kind := SubstationFormat.guess_format(text[:_HEAD])) is None:
        cues, strays = read_subtitles(text)
        return [pysubs2.SSAEvent(*cue) for cue in cues], strays
    try:
        return list(pysubs2.SSAFile.from_string(text, kind)), []
    except (Pysubs2Error, ValueError, IndexError, KeyError, TypeError):  # raised by its parser for malformed files
        return [], []


def _sorted_out(events: Sequence[pysubs2.SSAEvent]) -> tuple[list[Cue], list[Dropped]]:
    """Tell cues that may be speech from others; if most are placed on the screen, that makes none a sign."""
    placed = sum(bool(_PLACED.search(event.text)) for event in events)
    cues, dropped = [], []
    for n, event in enumerate(events, start=1):
        text, drawn = _undrawn(event.text)
        plain = event.plaintext if event.is_comment else pysubs2.SSAEvent(text=text).plaintext
        reason = None
        if event.is_comment:
            reason = COMMENT
        elif drawn and not plain.strip():
            reason, plain = DRAWING, event.plaintext
        elif _SUNG.search(event.text):
            reason = KARAOKE
        elif _PLACED.search(event.text) and 2 * placed <= len(events):
            reason = SIGN
        cue = Cue((n,), event.start / 1000, event.end / 1000, plain)
        if reason is None:
            cues.append(cue)
        else:
            dropped.append(Dropped(cue, reason))
    return cues, dropped


def _undrawn(text: str) -> tuple[str, bool]:
    """Remove the drawings from the text of an event; return also whether there are any."""
    kept, drawing, drawn = [], False, False
    for part in _STYLES.split(text):
        if _STYLES.fullmatch(part):
            drawing = next((scale.strip("0") != "" for scale in reversed(_DRAWS.findall(part))), drawing)
        if drawing:
            drawn = True
        else:
            kept.append(part)
    return "".join(kept), drawn


def _decoded(path: Path, language: str, encoding: str | None) -> tuple[str, str]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as e:
        raise DataError(printable(f"{path}: cannot be read: {e.strerror}")) from None
    if len(data) > _MAX_BYTES:
        raise DataError(printable(f"{path}: more than {_MAX_BYTES >> 20} MiB: no subtitle file"))
    if not data.strip():
        raise DataError(printable(f"{path}: is empty"))
    used = marked_encoding(data) or encoding or encoding_of(data, path, language)
    text = LINE_END.sub("\n", _strictly(data, used, path))
    if twice := read_twice(text, language, ("cp1252", "latin-1", *pages_of(language))):
        line, page, shown, meant = twice
        damage = f"UTF-8 that was once read as {page} and saved again ({shown} for {meant}); repair the file"
        raise DataError(printable(f"{path}:{line}: {damage}"))
    if broken := _BROKEN.search(text):
        line = text.count("\n", 0, broken.start()) + 1
        raise DataError(
            printable(
                f"{path}:{line}: a character that text does not have; if it is not {used}, "
                "give the right encoding (--encoding)"
            )
        )
    return text, used


def _strictly(data: bytes, encoding: str, path: Path) -> str:
    try:
        return data.decode(encoding)
    except LookupError:
        raise DataError(printable(f"encoding {encoding}: Python knows no such encoding")) from None
    except UnicodeError as e:
        raise DataError(
            printable(f"{path}: not {encoding} ({e.reason if isinstance(e, UnicodeDecodeError) else e})")
        ) from None
