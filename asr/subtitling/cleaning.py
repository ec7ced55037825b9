"""What was said, of what a cue shows: without markup, speakers' names, descriptions of sounds, music and credits."""

from __future__ import annotations

import html
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from typing import NamedTuple

import regex

from asr.subtitling.cues import Cue, Dropped
from asr.words import together

NEGATIVE, EMPTY, MUSIC, CREDITS = "negative length", "empty", "music", "credits"
SOUND, NO_WORDS, DUPLICATE = "sound description", "no words", "duplicate"

_NAMED_OFTEN = 3  # as often a name before a colon stands in a file for it to be a speaker
_NO_GAP_S = 0.05  # less than a frame or two, which parts cues that were made by a person

_MARKUP = regex.compile(r"</?[\p{L}/][^<>]*>|\{[^{}]*\}")
_NOTES = regex.compile(r"[♩♪♫♬🎵🎶]|^#\s|\s#$")
_BRACKETS = regex.compile(r"\[[^\[\]]*\]|\([^()]*\)|（[^（）]*）|【[^【】]*】|〔[^〔〕]*〕|［[^［］]*］|\*[^*\n]+\*")
_HALF_BRACKETS = regex.compile(r"[\[【［〔][^\]】］〕]*$|^[^\[【［〔]*[\]】］〕]")
_DASH = regex.compile(r"^\s*(?:[-–—‐−]+|[>＞]{2,})\s*")
_NAME = r"\p{Lu}[\p{L}\p{M}\p{N}.'’-]*"
_LABEL = regex.compile(rf"^\s*(?:(\p{{Lu}}[\p{{Lu}}\p{{M}}\p{{N}} .'’&#-]+)|({_NAME}(?: {_NAME}){{0,2}})):(?=\s|$)\s*")
_HAN_LABEL = regex.compile(r"^\s*(\p{Han}[\p{Han}·]{0,5})[:：]\s*")
_SAYING = regex.compile(r"[说說道问問曰想是叫]$")
_WEB = r"www\.|https?:|\b[\w-]{1,63}\.(?:com|org|net|tv|cz|cc)\b"
_WORK = (
    r"sub(?:title|bing)?s?|captions?|captioned|subtitled|translat(?:ion|ed)|transcri(?:pt|bed)|timing|(?:re)?sync\w{0,20}"
    r"|ripped|encoded|correct(?:ed|ions?)|adapted"
)
_CREDITS = regex.compile(
    rf"{_WEB}|©|\b(?:{_WORK})(?:\s{{1,9}}(?:and|&)\s{{1,9}}(?:{_WORK})){{0,3}}\s{{0,9}}(?:by\b|:)|opensubtitles|addic7ed"
    r"|\b(?:titulky|překlad|přeložil[ai]?|vertaling|ondertitel\w{{0,20}}|untertitel\w{{0,20}}|sous-titr\w{{0,20}}|subtítulos)\s{{0,9}}(?::|door|von|par|por)"
    r"|字幕(?:组|組|製作|制作|翻譯|翻译|校對|校对|提供|[:：])|(?:翻译|翻譯|校对|校對|时间轴|時間軸|压制|壓制)[:：]",
    regex.IGNORECASE,
)
_WORD = regex.compile(r"[\p{L}\p{N}]")


class _Text(NamedTuple):
    """The lines that are left; reason: why there are none."""

    lines: tuple[str, ...]
    reason: str | None


def clean(cues: Iterable[Cue]) -> tuple[list[Cue], list[Dropped]]:
    """Cues in the order of time with what is said in them, on one line, and those in which nothing is.

    A cue that says again what the one before says, without a pause, makes that one longer; one that repeats its lines
    and adds others (roll-up captions) keeps the others.
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
            kept.append(cue._replace(text=together(new)))
        else:
            kept[-1] = kept[-1]._replace(end_s=max(kept[-1].end_s, cue.end_s))
            dropped.append(Dropped(cue, DUPLICATE))
    return kept, dropped


def speakers(texts: Iterable[str]) -> Set[str]:
    """Names that stand before a colon at least three times, at the beginnings of lines.

    Those in capitals are taken for names without that; of others one cannot know ("Remember: ...").
    """
    counts: Counter[str] = Counter()
    for text in texts:
        for line in text.split("\n"):
            line = _DASH.sub("", _MARKUP.sub("", line))
            if found := _LABEL.match(line):
                counts[found[2] or found[1]] += 1
            elif (found := _HAN_LABEL.match(line)) and not _SAYING.search(found[1]):
                counts[found[1]] += 1
    return {name for name, count in counts.items() if count >= _NAMED_OFTEN}


def _said(text: str, names: Set[str]) -> _Text:
    """The lines of a cue, cleaned, if they hold a word."""
    text = "".join(
        c for c in html.unescape(_MARKUP.sub("", text)) if c in "\n\u200c\u200d" or unicodedata.category(c) != "Cf"
    )
    if not text.strip():
        return _Text((), EMPTY)
    if _NOTES.search(text.strip()):
        return _Text((), MUSIC)
    if _CREDITS.search(text):
        return _Text((), CREDITS)
    spoken = _without_sounds(text)
    if not spoken.strip(" \n-–—:：>"):
        return _Text((), SOUND)
    lines = [_plain_line(line, names) for line in spoken.split("\n")]
    lines = [line for line in lines if _WORD.search(line)]
    return _Text(tuple(lines), None if lines else NO_WORDS)


def _without_sounds(text: str) -> str:
    while (shorter := _BRACKETS.sub(" ", text)) != text:  # brackets within brackets
        text = shorter
    return _HALF_BRACKETS.sub(" ", text)


def _plain_line(line: str, names: Set[str]) -> str:
    line = _DASH.sub("", line)
    found = _LABEL.match(line) or _HAN_LABEL.match(line)
    if found and ((found.re is _LABEL and found[1]) or found[found.lastindex or 1] in names):
        line = line[found.end() :]
    return " ".join(_DASH.sub("", line).split())


def _repeated(before: Sequence[str], lines: Sequence[str]) -> int:
    """How many of the first lines are the last ones of the cue before."""
    most = min(len(before), len(lines))
    return next((n for n in range(most, 0, -1) if tuple(before[-n:]) == tuple(lines[:n])), 0)
