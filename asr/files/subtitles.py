"""SubRip and WebVTT: cues, and whatever else is in the file, with its line.

This is our own code because pysubs2 does not say which lines it leaves out, and takes text for times and numbers, or
numbers for text.  WebVTT is that of W3C; SubRip, which nobody has defined, is what is found in files: an empty line may
be within the text of a cue, and none between two cues.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

LINE_END = re.compile(r"\r{0,2}\n|\r")
# Names may follow the bracket, those of styles also a space; the last are the times of words.
TAG = re.compile(r"</?(?:[^\W\d_]|/)[^<>]*>|< ?/? ?[biusBIUS] ?>|<(?:\d+:)+[\d.]+>")
UNREADABLE, OUTSIDE = "unreadable time", "text outside of cues"

_UNSEEN = {"WEBVTT", "NOTE", "STYLE", "REGION"}
_TIME = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})(?:(?:[.,]|:(?=\d{3}))(\d{1,9}))?"
_TIMES = re.compile(rf"\s*(?:\d+\s+)?{_TIME}\s*[-–—]*[>→]\s*{_TIME}(?:\s.*:.*|\s*)")  # settings have a colon
_WHOLE_TIME = re.compile(r"\s*\d+:\d+:\d+[.,]\d")


class Timed(NamedTuple):
    """Text that is shown from start to end, with markup and line breaks."""

    start_ms: int
    end_ms: int
    text: str


class Stray(NamedTuple):
    """Lines that are no cue, the number of the first of them, counted from 1, and what is wrong with them."""

    line: int
    text: str
    fault: str


def read_subtitles(text: str) -> tuple[list[Timed], list[Stray]]:
    """Return the cues of a file in its own order, and what belongs to none of them.

    A line with an arrow (-->) and a digit is meant as times.  If the first cue has a number, so have the others;
    identifiers, comments, styles and regions of WebVTT are left out.  Times may lack the hours, or what is behind the
    seconds, but not both, as minutes could be hours then.
    """
    lines = LINE_END.split(text.replace("\ufeff", ""))
    if web := text.lstrip("\ufeff \t\r\n").split(maxsplit=1)[:1] == ["WEBVTT"]:
        lines = list(_seen(lines))
    begins = [i for i, line in enumerate(lines) if _meant(line)]
    _remove_names(lines, begins, web)
    cues, strays = [], []
    for at, end in pairwise([-1, *begins, len(lines)]):
        inside = at + 1 if at < 0 else next((i for i in range(at + 1, end) if web and not lines[i].strip()), end)
        said = "\n".join(lines[at + 1 : inside]).strip()
        if at >= 0 and (times := _times(lines[at])):
            cues.append(Timed(*times, said))
        elif at >= 0:
            strays.append(Stray(at + 1, f"{lines[at]}\n{said}".strip(), UNREADABLE))
        if (first := next((i for i in range(inside, end) if lines[i].strip()), end)) < end:
            strays.append(Stray(first + 1, "\n".join(lines[first:end]).strip(), OUTSIDE))
    return cues, strays


def _seen(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of WebVTT, with empty ones in place of header, comments, styles and regions."""
    unseen, above = "", ""
    for line in lines:
        if not above.strip():
            unseen = next((word for word in line.split(maxsplit=1)[:1] if word in _UNSEEN), "")
        if unseen != "NOTE" and _meant(line):
            unseen = ""
        yield "" if unseen else line
        above = line


def _remove_names(lines: list[str], begins: list[int], web: bool) -> None:
    """Replace what stands above the times by an empty line: a cue's number or, in WebVTT, any identifier.

    The number of a SubRip cue may have an empty line below it, and the file may end after the number.
    """
    numbered = bool(begins) and begins[0] > 0 and lines[begins[0] - 1].strip().isdecimal()
    for begin in begins if web else [*begins, len(lines)]:
        at = begin - 1
        while not web and at > 0 and not lines[at].strip():
            at -= 1
        if at >= 0 and not _meant(lines[at]):
            apart = at == 0 or not lines[at - 1].strip()
            number = numbered and lines[at].strip().isdecimal() and (apart or begin < len(lines))
            if number or (web and apart):
                lines[at] = ""


def _meant(line: str) -> bool:
    """Return whether a line can only be meant as the times of a cue."""
    arrow = "-->" in line and any(map(str.isdecimal, line))
    return arrow or _WHOLE_TIME.match(line) is not None or _times(line) is not None


def _times(line: str) -> tuple[int, int] | None:
    """Return start and end in milliseconds; None if the line does not say both."""
    if (found := _TIMES.fullmatch(line)) is None:
        return None
    start_ms, end_ms = _time_ms(*found.groups()[:4]), _time_ms(*found.groups()[4:])
    return None if start_ms is None or end_ms is None else (start_ms, end_ms)


def _time_ms(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> int | None:
    if hours is None and fraction is None:
        return None
    whole_s = 60 * (60 * int(hours or 0) + int(minutes)) + int(seconds)
    return 1000 * whole_s + int((fraction or "").ljust(3, "0")[:3])
