"""Cleaning of cues: removes markup, speakers' names, sound descriptions, music and credits, and leaves the speech."""

from __future__ import annotations

import html
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from typing import NamedTuple

import regex

from asr.files.subtitles import TAG
from asr.subtitling.credits import is_credits
from asr.subtitling.cues import Cue, Dropped

NEGATIVE, EMPTY, MUSIC, CREDITS = "negative length", "empty", "music", "credits"
SOUND, NO_WORDS, DUPLICATE = "sound description", "no words", "duplicate"

_NAMED_OFTEN = 3  # times that a name before a colon must occur in a file to count as a speaker
_MOST_NESTED = 4  # brackets within brackets; without a limit, a hostile line would take quadratic time
_NO_GAP_S = 0.05  # less than the frame or two that people leave between cues

_MARKUP = regex.compile(rf"{TAG.pattern}|\{{[^{{}}]*\}}")
_NOTES = regex.compile(r"[♩♪♫♬🎵🎶]|^#\s|\s#$|\A~[^~]+~\Z")
_BRACKETS = regex.compile(r"\[[^\[\]]*\]|\([^()]*\)|（[^（）]*）|【[^【】]*】|〔[^〔〕]*〕|［[^［］]*］")
# Between asterisks, a sound stands between sentences, and emphasis within one.
_STARRED_SOUND = regex.compile(r"(?<=(?:^|[.!?…–—-])\s*)\*+[^*\n]+\*+(?!\s*[\p{Ll},.!?…])", regex.MULTILINE)
_SLASHED_SOUND = regex.compile(r"^[^\S\n]*[-–—]?[^\S\n]*/[^/\n]+/[^\S\n]*$", regex.MULTILINE)
_EMPHASIS = regex.compile(r"(?<![\w*])\*+([^*\n]+)\*+(?![\w*])")
_HALF_BRACKETS = regex.compile(r"[\[【［〔][^\]】］〕]*$|^[^\[【［〔]*[\]】］〕]")
_DASH = regex.compile(r"^\s*(?:[-–—‐−]+|[>＞]{2,})\s*")
_NAME = r"\p{Lu}[\p{L}\p{M}\p{N}.'’-]*"
_COLON = r"(?:\s?:(?=\s|$)|\s?：)\s*"
_CAPITALS = r"\p{Lu}[\p{Lu}\p{M}\p{N} .'’&#-]*[\p{Lu}\p{M}\p{N}.'’#]"
_LABEL = regex.compile(rf"^\s*(?:({_CAPITALS})|(\d{_CAPITALS}|{_NAME}(?: {_NAME}){{0,2}})){_COLON}")
# Scripts without capitals; Chinese and Japanese put no space after a colon.
_LETTERS = r"\p{Lo}[\p{Lo}\p{Lm}\p{M}\p{N}·・'’.-]{0,11}"
_CASELESS_LABEL = regex.compile(
    rf"^\s*(\p{{Han}}[\p{{Han}}·]{{0,5}}|{_LETTERS}(?: {_LETTERS}){{0,2}})\s?"
    r"(?:：|(?<=[\p{Han}\p{Hiragana}\p{Katakana}ー]\s?):|:(?=\s|$))(?!\d)\s*"
)
_SAYING = regex.compile(r"[说說道問问曰想是叫]$|^(?:قال|قالت|يقول|تقول|אמר|אמרה|אומר|אומרת)$")
_WORD = regex.compile(r"[\p{L}\p{N}]")
_WIDE_GAP = regex.compile(r"\s{2,}")


class _Text(NamedTuple):
    """The lines that are left, or the reason why there are none."""

    lines: tuple[str, ...]
    reason: str | None


def clean(cues: Iterable[Cue]) -> tuple[list[Cue], list[Dropped]]:
    """Return cues in the order of time, each with the lines of its speech, and the cues that were dropped.

    A cue that repeats the previous one without a pause lengthens that one; a cue that repeats its lines and adds others
    (roll-up captions) keeps only the others.  A line is divided at double spaces, which Chinese subtitles have instead
    of commas.
    """
    cues = list(cues)
    names = speakers(cue.text for cue in cues)
    kept: list[Cue] = []
    dropped: list[Dropped] = []
    before: tuple[str, ...] = ()
    for cue in sorted(cues, key=lambda cue: (cue.start_s, cue.end_s)):
        text = _Text((), NEGATIVE) if cue.end_s <= cue.start_s else _said(cue.text, names)
        if text.reason is not None:
            dropped.append(Dropped(cue, text.reason))
            continue
        rolls = bool(kept) and cue.start_s - kept[-1].end_s <= _NO_GAP_S
        new = text.lines[_repeated(before, text.lines) if rolls else 0 :]
        before = text.lines
        if new:
            kept.append(cue._replace(text="\n".join(new)))
        else:
            kept[-1] = kept[-1]._replace(end_s=max(kept[-1].end_s, cue.end_s))
            dropped.append(Dropped(cue, DUPLICATE))
    return kept, dropped


def speakers(texts: Iterable[str]) -> Set[str]:
    """Return the names that occur before a colon at the start of at least three lines.

    `clean` takes labels in capitals for names even if they are rare; others could be plain text ("Remember: ...").
    """
    counts: Counter[str] = Counter()
    for text in texts:
        for line in text.split("\n"):
            line = _DASH.sub("", _MARKUP.sub("", line))
            if found := _LABEL.match(line):
                counts[found[2] or found[1]] += 1
            elif (found := _CASELESS_LABEL.match(line)) and not _SAYING.search(found[1]):
                counts[found[1]] += 1
    return {name for name, count in counts.items() if count >= _NAMED_OFTEN}


def _said(text: str, names: Set[str]) -> _Text:
    """Return the cleaned lines of a cue that contain a word, or the reason why there are none."""
    text = "".join(
        c for c in html.unescape(_MARKUP.sub("", text)) if c in "\n\u200c\u200d" or unicodedata.category(c) != "Cf"
    )
    if not text.strip():
        return _Text((), EMPTY)
    if _NOTES.search(text.strip()):
        return _Text((), MUSIC)
    if is_credits(text):
        return _Text((), CREDITS)
    spoken = _without_sounds(text)
    if not spoken.strip(" \n-–—:：>"):
        return _Text((), SOUND)
    lines = [_plain_line(line, names) for line in spoken.split("\n")]
    lines = [line for line in lines if _WORD.search(line)]
    return _Text(tuple(lines), None if lines else NO_WORDS)


def _without_sounds(text: str) -> str:
    for _ in range(_MOST_NESTED):
        text = _BRACKETS.sub(" ", text)
    text = _EMPHASIS.sub(r"\1", _STARRED_SOUND.sub(" ", _SLASHED_SOUND.sub("", text)))
    return _HALF_BRACKETS.sub(" ", text)


def _plain_line(line: str, names: Set[str]) -> str:
    line = _DASH.sub("", line)
    found = _LABEL.match(line) or _CASELESS_LABEL.match(line)
    if found and ((found.re is _LABEL and found[1]) or found[found.lastindex or 1] in names):
        line = line[found.end() :]
    return "\n".join(" ".join(part.split()) for part in _WIDE_GAP.split(_DASH.sub("", line).strip()))


def _repeated(before: Sequence[str], lines: Sequence[str]) -> int:
    """Return how many of the first lines repeat the last lines of the previous cue."""
    most = min(len(before), len(lines))
    return next((n for n in range(most, 0, -1) if tuple(before[-n:]) == tuple(lines[:n])), 0)
