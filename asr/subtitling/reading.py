"""Reading of cues from SubRip, WebVTT and SubStation Alpha files in any encoding, with pysubs2."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pysubs2
from pysubs2.exceptions import Pysubs2Error
from pysubs2.formats import autodetect_format

from asr.errors import DataError, printable
from asr.subtitling.cues import Cue
from asr.subtitling.encodings import encoding_of, marked_encoding

SUFFIXES = (".srt", ".vtt", ".ass", ".ssa")
UNREADABLE = "unreadable time"

_KINDS, _HEAD = {"srt", "vtt", "ass", "ssa"}, 10_000  # pysubs2 supports other formats, too
_MAX_BYTES = 16 << 20  # those of the longest films have a few hundred kB
_BROKEN = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\ufffd]")
_INLINE_TIME = re.compile(r"<[\d:.]+>")


class CueFile(NamedTuple):
    """The contents of a file.

    encoding: the one that it was read with.  unread: number of "-->" lines whose times could not be read.
    """

    cues: list[Cue]
    encoding: str
    unread: int


def read_cues(path: Path, language: str, encoding: str | None = None) -> CueFile:
    """Read the cues of a file in its own order, numbered from 1, with markup and line breaks.

    language: code of its language, which helps to detect an encoding other than UTF-8 (asr.subtitling.encodings) unless
    `encoding` is given.  Raises DataError, naming the file, if it is in none of these formats, has no cue, or is not
    text in that encoding.
    """
    text, used = _decoded(path, language, encoding)
    if text.lstrip().startswith("WEBVTT"):
        text = _cues_alone(text)
    try:
        kind = autodetect_format(text[:_HEAD])
        text = _all_numbered(text) if kind == "srt" else text
        events = list(pysubs2.SSAFile.from_string(text, kind, keep_unknown_html_tags=True)) if kind in _KINDS else []
        shown = [event for event in events if event.is_text]
    except (Pysubs2Error, ValueError, IndexError, KeyError, TypeError):  # raised by its parsers for malformed files
        shown = []
    cues = [
        Cue((n,), event.start / 1000, event.end / 1000, _own_text(event.plaintext))
        for n, event in enumerate(shown, start=1)
    ]
    if not cues:
        raise DataError(printable(f"{path}: neither SRT, VTT, ASS nor SSA: there is no cue in it"))
    arrows = sum("-->" in line for line in text.split("\n")) if kind in ("srt", "vtt") else 0
    return CueFile(cues, used, max(0, arrows - len(events)))


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
    text = _strictly(data, used, path)
    if broken := _BROKEN.search(text):
        line = text.count("\n", 0, broken.start()) + 1
        raise DataError(
            printable(
                f"{path}:{line}: a character that text does not have; if it is not {used}, "
                "give the right encoding (--encoding)"
            )
        )
    if _read_twice(text):
        raise DataError(printable(f"{path}: UTF-8 that was once read as Windows-1252 and saved again; repair the file"))
    return text.replace("\r\n", "\n").replace("\r", "\n"), used


def _strictly(data: bytes, encoding: str, path: Path) -> str:
    try:
        return data.decode(encoding)
    except LookupError:
        raise DataError(printable(f"encoding {encoding}: Python knows no such encoding")) from None
    except UnicodeError as e:
        raise DataError(
            printable(f"{path}: not {encoding} ({e.reason if isinstance(e, UnicodeDecodeError) else e})")
        ) from None


def _own_text(text: str) -> str:
    """Cut off the text at a "-->" with unreadable times: pysubs2 takes the cue there for a part of this one."""
    lines = text.split("\n")
    if (arrow := next((i for i, line in enumerate(lines) if "-->" in line), None)) is None:
        return text
    return "\n".join(lines[: arrow - 1 if arrow and lines[arrow - 1].strip().isdigit() else arrow])


def _read_twice(text: str) -> bool:
    """Return whether a text is UTF-8 that was decoded as Windows-1252 (double encoding)."""
    if text.isascii():
        return False
    try:
        text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return False
    return True


def _cues_alone(text: str) -> str:
    """Remove from WebVTT what pysubs2 would take for cue text: comments, styles, word times, identifiers.

    All cues get the number 0, as it takes a number in the last line of a cue for that of the next one.
    """
    blocks = re.split(r"\n[ \t]*\n", text)
    cues = ["WEBVTT"]
    for block in blocks:
        lines = block.split("\n")
        time = next((i for i, line in enumerate(lines) if "-->" in line), None)
        if time is not None and not re.match(r"\s*NOTE\b", block):
            cues.append("\n".join(["0", lines[time], *(_INLINE_TIME.sub("", line) for line in lines[time + 1 :])]))
    return "\n\n".join([*cues, "0\n"])


def _all_numbered(text: str) -> str:
    """Number the end of a SubRip file, and the cues if they have no numbers, for the same reason."""
    if "-->" in text.lstrip().partition("\n")[0]:
        text = re.sub(r"^(?=.*-->)", "\n0\n", text, flags=re.MULTILINE)
    return f"{text}\n\n0\n"
