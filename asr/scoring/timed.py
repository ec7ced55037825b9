"""Texts with times: sclite's STM and CTM, and subtitles."""

from __future__ import annotations

import html
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from asr.errors import DataError, printable
from asr.files.subtitles import TAG, UNREADABLE, read_subtitles
from asr.scoring.rows import PathLike, Row, Source, lines
from asr.text.scripts import one_after_another

_NOT_SCORED = "IGNORE_TIME_SEGMENT_IN_SCORING"
_LABEL = re.compile(r"<[^<>\s]*>")
_STYLE = re.compile(r"\{\\[^{}]*\}")
_SHOWN = 60  # letters of a line that a message shows


@dataclass(frozen=True)
class Segment:
    """A line of STM."""

    file: str
    channel: str
    speaker: str
    start_s: float
    end_s: float
    label: str
    text: str

    @property
    def id(self) -> str:
        return f"{self.file}_{self.channel}_{self.start_s:.3f}_{self.end_s:.3f}"

    @property
    def scored(self) -> bool:
        return self.text.upper() != _NOT_SCORED


class TimedWord(NamedTuple):
    """A line of CTM."""

    file: str
    channel: str
    start_s: float
    duration_s: float
    text: str

    @property
    def middle_s(self) -> float:
        return self.start_s + self.duration_s / 2


def refuse_alternatives(path: PathLike, number: int, text: str) -> None:
    """Raise DataError for alternative texts in curly brackets, which sclite accepts but this project does not."""
    if "{" in text.split():
        raise DataError(f"{os.fspath(path)}:{number}: alternatives in curly brackets are not read; choose one of them")


def segments(path: PathLike) -> Iterator[Segment]:
    """Yield the lines of an STM: `file channel speaker begin end [<label>] text`; lines starting with ;; are comments.

    Includes segments whose text is IGNORE_TIME_SEGMENT_IN_SCORING.
    """
    for number, line in lines(path):
        if not line.strip() or line.startswith(";;"):
            continue
        fields = line.split(maxsplit=5)
        start_s, end_s = map(_seconds, fields[3:5]) if len(fields) >= 5 else (math.nan, math.nan)
        if not -math.inf < start_s <= end_s < math.inf:
            raise DataError(
                f"{os.fspath(path)}:{number}: needs `file channel speaker begin end text`, times in seconds"
            )
        text = "".join(fields[5:])
        label = match[0] if (match := _LABEL.match(text)) else ""
        refuse_alternatives(path, number, text)
        yield Segment(fields[0], fields[1], fields[2], start_s, end_s, label, text[len(label) :].strip())


def timed_words(path: PathLike) -> Iterator[TimedWord]:
    """Yield the lines of a CTM: `file channel begin duration word [confidence]`; ;; begins a comment line."""
    for number, line in lines(path):
        if not line.strip() or line.startswith(";;"):
            continue
        fields = line.split()
        if len(fields) > 4 and fields[4].startswith("<ALT"):
            raise DataError(f"{os.fspath(path)}:{number}: alternatives are not read; choose one of them")
        start_s, duration_s = map(_seconds, fields[2:4]) if len(fields) >= 5 else (math.nan, math.nan)
        if not (math.isfinite(start_s) and 0 <= duration_s < math.inf):
            raise DataError(f"{os.fspath(path)}:{number}: needs `file channel begin duration word`, times in seconds")
        yield TimedWord(fields[0], fields[1], start_s, duration_s, fields[4])


def read_stm(path: PathLike) -> Iterator[Row]:
    """Yield a row for each segment that is scored."""
    for segment in segments(path):
        if segment.scored:
            fields = {k: getattr(segment, k) for k in ("file", "channel", "speaker", "label")}
            fields["duration"] = segment.end_s - segment.start_s
            yield Row(segment.id, segment.text, None, fields)


def read_ctm(path: PathLike) -> Iterator[Row]:
    """Yield a row for each file (or `file_channel` if it has several channels), with its words in order of time."""
    spoken: dict[str, dict[str, list[TimedWord]]] = defaultdict(lambda: defaultdict(list))
    for word in timed_words(path):
        spoken[word.file][word.channel].append(word)
    for file, channels in spoken.items():
        for channel, words in channels.items():
            words.sort(key=lambda w: w.start_s)
            id = file if len(channels) == 1 else f"{file}_{channel}"
            yield Row(id, " ".join(w.text for w in words))


def by_time(reference: Source, hypothesis: Source) -> Source:
    """Assign the words of a CTM to the segments of an STM, by file and channel.

    As in sclite, words are taken in order of their starts and segments in order of time: a word whose middle lies at
    or after the end of a segment belongs, with all words after it, to a later one, if there is one.  Words in segments
    that are not scored are dropped with them.  Raises DataError for words of a file and channel that the STM lacks, as
    they can only be a mistake.
    """
    return Source(hypothesis.name, "ctm", lambda: _in_segments(reference.name, hypothesis.name))


def _in_segments(stm: PathLike, ctm: PathLike) -> Iterator[Row]:
    plan: dict[tuple[str, str], list[Segment]] = defaultdict(list)
    for segment in segments(stm):
        plan[segment.file, segment.channel].append(segment)
    words: dict[tuple[str, str], list[TimedWord]] = defaultdict(list)
    for word in timed_words(ctm):
        words[word.file, word.channel].append(word)
    if unknown := [f"{file} {channel}" for file, channel in words if (file, channel) not in plan]:
        raise DataError(
            f"{os.fspath(ctm)}: {os.fspath(stm)} has no segment of {', '.join(unknown[:5])} (file, channel)"
        )
    for place, there in plan.items():
        if place not in words:
            continue  # reported as missing when the ids are matched
        ordered = sorted(there, key=lambda s: (s.start_s, s.end_s))
        texts: list[list[str]] = [[] for _ in ordered]
        at = 0
        for word in sorted(words[place], key=lambda w: w.start_s):
            while word.middle_s >= ordered[at].end_s and at + 1 < len(ordered):
                at += 1
            texts[at].append(word.text)
        for segment, text in zip(ordered, texts, strict=True):
            if segment.scored:
                yield Row(segment.id, " ".join(text))


def read_cues(path: PathLike) -> Iterator[Row]:
    """Yield the cues of SubRip or WebVTT without markup, in file order and numbered from 1.

    Raises DataError for a file without cues, and naming the line for text that is in none of them.
    """
    cues, strays = read_subtitles("\n".join(line for _, line in lines(path)))
    for line, text, fault in strays:
        if cues or fault == UNREADABLE:
            shown = printable(text.partition("\n")[0][:_SHOWN])
            raise DataError(f"{os.fspath(path)}:{line}: {fault} ('{shown}') would not be scored; mend or remove it")
    if not cues:
        raise DataError(f"{os.fspath(path)}: no cues: nothing with an arrow (-->) between two times")
    for number, cue in enumerate(cues, start=1):
        plain = html.unescape(_STYLE.sub("", TAG.sub("", cue.text)).replace(r"\N", "\n").replace(r"\h", " "))
        yield Row(str(number), " ".join(one_after_another(plain.split("\n")).split()))


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
