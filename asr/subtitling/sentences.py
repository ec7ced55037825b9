"""Turning cues into sentences: cues are split where text and speech pause, and parts of a sentence are joined."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import regex

from asr.subtitling.activity import Activity, Floats
from asr.subtitling.cues import Cue, overlapping
from asr.text.scripts import one_after_another, seam
from asr.words import is_sentence_end

JOIN_GAP_S = 1.0  # a longer pause separates even parts of one sentence
_PUNCTUATED = 0.3  # least share of cues that end a sentence for a file to count as punctuated
_PAUSE_S = 0.3
_NEAR_S, _NEAR_SHARE = 1.0, 0.25  # how far a pause may be from its place by share of text: seconds, share of speech
_LONG_SHARE = 0.1  # the same, if the cue would be dropped as too long otherwise

# A word or, in scripts without spaces, what ends with a full stop.
_PIECE = regex.compile(r"[^\s。！？]*[。！？]+[」』”’）]*|[^\s。！？]+")
_WIDE_END = regex.compile(r"[。！？][」』”’）]*$")
_LINE_END = regex.compile(r"(?<=\w[^\n]*)\n(?=[^\n]*\w)")
_CLAUSE_END = regex.compile(
    r"(?<=\w[\"'”’»)\]]?)(?:[,;:،؛][\"'”’»)\]]*(?=\s)|\s+[–—](?=\s)|[，、；：][」』”’）]*(?!\d))(?=\W*\w)"
)
_TRAILING, _LEADING = regex.compile(r"\s*(?:\.{2,}|…+|‥)$"), regex.compile(r"^(?:\.{2,}|…+|‥)\s*")


class _Pause(NamedTuple):
    start_s: float
    end_s: float

    @property
    def middle_s(self) -> float:
        return (self.start_s + self.end_s) / 2


def to_sentences(cues: Sequence[Cue], activity: Activity, max_s: float) -> list[Cue]:
    """Split and join aligned cues, given in the order of time, into sentences of one line each.

    Cues are split at pauses near the end of a sentence.  In subtitles without full stops, as Chinese ones mostly are,
    they are also split at pauses near a line break or, between Chinese or Japanese words, a space.  What is still
    longer than max_s is also split at pauses near line breaks or commas, until no part is.

    max_s: maximum length of a joined sentence.  Subtitles without full stops join only cues with "..." to show that
    they continue.  Overlapping cues are left as they are, as nobody can tell when each of their sentences is heard.
    """
    mixed = {cues[i].numbers for i in overlapping(cues)}

    def each(cues: Iterable[Cue], split: Callable[[Cue], Iterable[Cue]]) -> list[Cue]:
        return [part for cue in cues for part in ([cue] if cue.numbers in mixed else split(cue))]

    parts = each(cues, lambda cue: _split(cue, sentence_ends(cue.text)[:-1], activity))
    ends = sum(_is_end(part.text) for part in parts)
    punctuated = ends >= _PUNCTUATED * len(parts)
    if not punctuated:
        parts = each(parts, lambda part: _split(part, line_ends(part.text), activity))
    parts = each(parts, lambda part: _short_enough(part, activity, max_s))
    made: list[Cue] = []
    for part in parts:
        apart = not made or part.numbers in mixed or made[-1].numbers in mixed
        if not apart and _goes_on(made[-1], part, punctuated, max_s):
            made[-1] = _together(made[-1], part)
        else:
            made.append(part)
    # The last part of a split cue may start after the next cue.
    return sorted((cue._replace(text=cue.line) for cue in made), key=lambda cue: cue.start_s)


def sentence_ends(text: str) -> list[int]:
    """Return the end of each sentence of a text as a number of characters; the last is the length of the text."""
    words = [(piece.start(), piece.end()) for piece in _PIECE.finditer(text)]
    ends = []
    for (start, end), (next_start, next_end) in zip(words, words[1:], strict=False):
        if _WIDE_END.search(text, start, end) or is_sentence_end(text[start:end], text[next_start:next_end]):
            ends.append(end)
    return [*ends, len(text)]


def line_ends(text: str) -> list[int]:
    """Return where a text has a line break, or a space between Chinese or Japanese words; all have words around."""
    breaks = [found.start() for found in _LINE_END.finditer(text)]
    spaces = [
        i for i in range(1, len(text)) if text[i] == " " and not seam(text[max(0, i - 4) : i], text[i + 1 : i + 5])
    ]
    return sorted(breaks + spaces)


def _split(cue: Cue, places: Sequence[int], activity: Activity) -> Iterator[Cue]:
    """Split a cue at those places in its text that have a pause of the speech near them."""
    pauses, rest = _pauses(cue, activity), cue
    near_s = min(_NEAR_S, _NEAR_SHARE * activity.speech_s(cue.start_s, cue.end_s))
    expected_s = _expected_s(cue, places, activity) if pauses else np.zeros(0)
    for place, at_s in zip(places, expected_s.tolist(), strict=False):
        first = bisect_left(pauses, at_s - near_s, key=lambda pause: pause.end_s)
        last = bisect_right(pauses, at_s + near_s, key=lambda pause: pause.start_s)
        if found := [pause for pause in pauses[first:last] if pause.start_s > rest.start_s]:
            before, rest = _parted(
                rest, place - len(cue.text), min(found, key=lambda pause: abs(pause.middle_s - at_s))
            )
            yield before
    yield rest


def _short_enough(cue: Cue, activity: Activity, max_s: float) -> Iterator[Cue]:
    """Split a cue that is too long at the longest pause near a place in its text, as often as needed and possible."""
    left = [cue]
    while left:
        part = left.pop()
        cut = _longest(part, activity) if part.duration_s > max_s else None
        if cut is None:
            yield part
        else:
            left += reversed(_parted(part, *cut))


def _longest(cue: Cue, activity: Activity) -> tuple[int, _Pause] | None:
    """Return the longest pause near the end of a sentence, line or clause, and that place counted from the end."""
    clauses = [clause.end() for clause in _CLAUSE_END.finditer(cue.text)]
    places = sorted({*sentence_ends(cue.text)[:-1], *line_ends(cue.text), *clauses})
    expected_s = _expected_s(cue, places, activity)
    near_s = max(_NEAR_S, _LONG_SHARE * activity.speech_s(cue.start_s, cue.end_s))
    for pause in sorted(_pauses(cue, activity), key=lambda pause: pause.start_s - pause.end_s) if places else ():
        i = int(np.abs(expected_s - pause.middle_s).argmin())
        if pause.start_s - near_s <= expected_s[i] <= pause.end_s + near_s:
            return places[i] - len(cue.text), pause
    return None


def _expected_s(cue: Cue, places: Sequence[int], activity: Activity) -> Floats:
    """Return when places in a text are heard if all of its characters take the same share of the speech."""
    speech_s = activity.speech_s(cue.start_s, cue.end_s)
    return activity.when(cue.start_s, speech_s * np.array(places, float) / len(cue.text))


def _parted(cue: Cue, place: int, pause: _Pause) -> tuple[Cue, Cue]:
    """Return the parts of a cue before and after a pause; the place in its text is counted from the end (-1)."""
    before, after = cue.text[:place].rstrip(), cue.text[place:].lstrip()
    return cue._replace(end_s=pause.start_s, text=before), cue._replace(start_s=pause.end_s, text=after)


def _pauses(cue: Cue, activity: Activity) -> list[_Pause]:
    """Return the pauses between stretches of speech within a cue."""
    regions = activity.regions_within(cue.start_s, cue.end_s)
    gaps = map(_Pause, regions[:-1, 1].tolist(), regions[1:, 0].tolist())
    return [
        gap for gap in gaps if gap.end_s - gap.start_s >= _PAUSE_S and cue.start_s < gap.start_s < gap.end_s < cue.end_s
    ]


def _is_end(text: str) -> bool:
    return is_sentence_end(text.split()[-1]) and not _TRAILING.search(text)


def _goes_on(before: Cue, part: Cue, punctuated: bool, max_s: float) -> bool:
    if part.start_s - before.end_s > JOIN_GAP_S or part.end_s - before.start_s > max_s:
        return False
    if before.numbers[-1] == part.numbers[0]:  # both come from one cue that was just split
        return False
    if _LEADING.search(part.text):
        return not _is_end(before.text)
    if _TRAILING.search(before.text):
        return part.text[0].islower()
    return punctuated and not is_sentence_end(before.text.split()[-1], part.text.split()[0])


def _together(before: Cue, part: Cue) -> Cue:
    text = part.text
    first = before.text
    if _LEADING.search(text):
        text = _LEADING.sub("", text)
        first = _TRAILING.sub("", first)
    numbers = (*before.numbers, *(n for n in part.numbers if n not in before.numbers))
    return Cue(numbers, before.start_s, max(before.end_s, part.end_s), one_after_another([first, text]))
