"""Making subtitle cues from words with times.

The defaults follow common practice: at most two lines of 42 characters, 5/6 to 7 s per cue, and a reading speed of 20
characters per second (Netflix, "Timed Text Style Guide: General Requirements" and "English").
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from asr.errors import ConfigError
from asr.text.scripts import seam
from asr.transcript import Segment, Transcript, Word
from asr.words import LONG_PAUSE_S, is_clause_end, is_full_stop, is_sentence_end

# Cost of a break, relative to the cost of one cue; a break after a sentence or a long pause is free.
_AFTER_CLAUSE, _ANYWHERE, _IN_A_WORD = 0.5, 3.0, 6.0
_SENTENCE_GOES_ON = 1.25  # for each sentence that ends inside a cue
_TOO_SHORT = 4.0  # for a cue with no reading time at all; less, the nearer it is to the time that it needs
_FLASH, _FLASH_S = 4.0, 1.0  # for a cue that the next one follows this soon: more than it costs to join them
_UNEVEN = 0.5  # times the square of how full a cue is, which favours evenly filled cues
_SHORT_PAUSE_S = 0.3
# In scripts without spaces, a clause stands for a word whose time is not known.
_PART = re.compile(r"[^。！？，、]+[。！？，、]*[」』”’）]*|[。！？，、]+")


@dataclass(frozen=True)
class SubtitleOptions:
    """Layout and timing of subtitles; a wide (Chinese, Japanese, Korean) character counts as two.

    Raises ConfigError for limits that no text can meet.
    """

    max_line_length: int = 42
    max_lines: int = 2
    min_duration_s: float = 5 / 6
    max_duration_s: float = 7.0
    characters_per_s: float = 20.0

    def __post_init__(self) -> None:
        if self.max_line_length < 2 or self.max_lines < 1:
            raise ConfigError("subtitles need lines of at least 2 characters and at least 1 line")
        if not (0 <= self.min_duration_s <= self.max_duration_s and self.characters_per_s > 0):
            raise ConfigError("subtitles need 0 <= min_duration_s <= max_duration_s and characters_per_s > 0")


@dataclass(frozen=True)
class Cue:
    """The lines on the screen from start to end, in milliseconds."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


class _Unit(NamedTuple):
    """A word, or a part of a word that is longer than a line.  cost: the cost of a break after it."""

    text: str
    width: int
    space: int
    start_s: float
    end_s: float
    cost: float
    ends_sentence: bool
    must_break: bool


def cues(transcript: Transcript, options: SubtitleOptions | None = None) -> list[Cue]:
    """Return the cues of a transcript in order, without overlaps.

    Cues end at sentence ends, pauses and commas where possible; a cue that the next one would replace within a second
    is joined to a neighbour if it can be.  A cue stays on the screen during the silence after it until it can be read.
    The text of a segment without words is spread evenly over its time.
    """
    options = options or SubtitleOptions()
    units = _units(transcript, options)
    parts = _break(units, options)
    made: list[Cue] = []
    for i, (start, end) in enumerate(parts):
        chosen = units[start:end]
        until_s = units[parts[i + 1][0]].start_s if i + 1 < len(parts) else max(transcript.duration_s, chosen[-1].end_s)
        # Even words with the same times need consecutive cues.
        start_ms = max(round(chosen[0].start_s * 1000), made[-1].end_ms if made else 0)
        columns = sum(unit.space + unit.width for unit in chosen) - chosen[0].space
        wanted_s = max(chosen[-1].end_s, start_ms / 1000 + _needed_s(columns, options))
        end_ms = max(round(min(wanted_s, until_s) * 1000), start_ms + 1)
        made.append(Cue(start_ms, end_ms, _lines(chosen, options)))
    return made


def width(text: str) -> int:
    """Return the number of columns that a text takes: two for wide characters, none for combining marks."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def segments_of(transcript: Transcript) -> tuple[Segment, ...]:
    """Return the segments of a transcript; if it has none, the whole text as one."""
    if transcript.segments or not transcript.text.strip():
        return transcript.segments
    return (Segment(transcript.text, 0.0, transcript.duration_s),)


def _units(transcript: Transcript, options: SubtitleOptions) -> list[_Unit]:
    words = list(_words(transcript))
    units: list[_Unit] = []
    for i, word in enumerate(words):
        following = words[i + 1] if i + 1 < len(words) else None
        pause_s = following.start_s - word.end_s if following else math.inf
        must, ends = pause_s >= LONG_PAUSE_S, is_sentence_end(word.text, following.text if following else "")
        # To a reader, a full stop ends a sentence even if lower case follows, where is_sentence_end says no.
        near = pause_s >= _SHORT_PAUSE_S or is_clause_end(word.text) or is_full_stop(word.text)
        cost = 0.0 if must or ends else _AFTER_CLAUSE if near else _ANYWHERE
        parts = list(_cut(" ".join(word.text.split()), options.max_line_length))
        step_s = (word.end_s - word.start_s) / len(parts)
        space, start_s = int(word.text[0].isspace()), word.start_s
        for part in parts[:-1]:
            units.append(_Unit(part, width(part), space, start_s, start_s + step_s, _IN_A_WORD, False, False))
            space, start_s = 0, start_s + step_s
        units.append(_Unit(parts[-1], width(parts[-1]), space, start_s, word.end_s, cost, ends, must))
    return units


def _words(transcript: Transcript) -> Iterator[Word]:
    """Yield all words that have text; segments without words are spread evenly over their time."""
    before = ""
    for segment in segments_of(transcript):
        for word in segment.words or _spread(segment, before):
            if word.text.strip():
                yield replace(word, end_s=max(word.start_s, word.end_s))
                before = word.text


def _spread(segment: Segment, before: str) -> Iterator[Word]:
    texts = [part for text in segment.text.split() for part in _PART.findall(f" {text}")]
    step_s = (segment.end_s - segment.start_s) / max(1, sum(len(text.strip()) for text in texts))
    at_s = segment.start_s
    for number, text in enumerate(texts):
        end_s = at_s + step_s * len(text.strip())
        yield Word(text if number else seam(before, text.strip()) + text.strip(), at_s, end_s, 1.0)
        at_s = end_s


def _cut(word: str, length: int) -> Iterator[str]:
    """Split a word into parts that fit into a line."""
    part = ""
    for character in word:
        if part and width(part + character) > length:
            yield part
            part = ""
        part += character
    yield part


def _needed_s(columns: int, options: SubtitleOptions) -> float:
    """Return the seconds that a cue should be shown: its reading time, within the limits."""
    return min(options.max_duration_s, max(options.min_duration_s, columns / options.characters_per_s))


def _break(units: Sequence[_Unit], options: SubtitleOptions) -> list[tuple[int, int]]:
    """Split the units into cues at the lowest cost, by dynamic programming from the end."""
    best = [0.0] * (len(units) + 1)
    ends = [0] * (len(units) + 1)
    for start in range(len(units) - 1, -1, -1):
        best[start] = math.inf
        sentences = 0.0
        for end, columns in _possible_ends(units, start, options):
            last = units[end - 1]
            after_s = units[end].start_s - units[start].start_s if end < len(units) else math.inf
            needed_s = _needed_s(columns, options)
            lack = max(0.0, 1 - after_s / needed_s) if needed_s else 0.0
            fullness = columns / (options.max_line_length * options.max_lines)
            flash = _FLASH * (after_s < min(_FLASH_S, options.max_duration_s))
            cost = 1 + last.cost + sentences + _TOO_SHORT * lack + flash + _UNEVEN * fullness**2 + best[end]
            if cost < best[start]:
                best[start], ends[start] = cost, end
            sentences += _SENTENCE_GOES_ON * last.ends_sentence
    parts, start = [], 0
    while start < len(units):
        parts.append((start, ends[start]))
        start = ends[start]
    return parts


def _possible_ends(units: Sequence[_Unit], start: int, options: SubtitleOptions) -> Iterator[tuple[int, int]]:
    """Yield the possible ends of a cue that begins at `start`, with its columns.

    Lines are filled one after the other, up to the next long pause.
    """
    lines, used, columns = 1, -units[start].space, -units[start].space
    for i in range(start, len(units)):
        unit = units[i]
        used, columns = used + unit.space + unit.width, columns + unit.space + unit.width
        if i > start:
            if used > options.max_line_length:
                lines, used = lines + 1, unit.width
            if lines > options.max_lines or unit.end_s - units[start].start_s > options.max_duration_s:
                return
        yield i + 1, columns
        if unit.must_break:
            return


def _lines(units: Sequence[_Unit], options: SubtitleOptions) -> tuple[str, ...]:
    """Lay out the lines of a cue: as few as possible, then as even as possible, preferably broken after a clause."""
    n, whole = len(units), sum(u.width + u.space for u in units)
    # best[i]: lines, unevenness and end of the first line, for units i to n
    best: list[tuple[int, float, int]] = [(0, 0.0, n)] * (n + 1)
    fewest = max(1, math.ceil(whole / options.max_line_length))
    for start in range(n - 1, -1, -1):
        used, choices = -units[start].space, []
        for end in range(start + 1, n + 1):
            used += units[end - 1].width + units[end - 1].space
            if used > options.max_line_length and end > start + 1:
                break
            badness = (used * fewest / whole - 1) ** 2 + (0.1 * units[end - 1].cost if end < n else 0.0)
            choices.append((best[end][0] + 1, best[end][1] + badness, end))
        best[start] = min(choices)
    lines, start = [], 0
    while start < n:
        end = best[start][2]
        lines.append("".join(" " * u.space + u.text for u in units[start:end]).strip())
        start = end
    return tuple(lines)
