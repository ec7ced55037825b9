"""Turning cues into sentences: cues with several sentences are split at pauses, parts of a sentence are joined."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import regex

from asr.subtitling.activity import Activity
from asr.subtitling.cues import Cue, overlapping
from asr.text.scripts import one_after_another
from asr.words import is_sentence_end

JOIN_GAP_S = 1.0  # a longer pause separates even parts of one sentence
_PUNCTUATED = 0.3  # least share of cues that end a sentence for a file to count as punctuated
_PAUSE_S = 0.3
_NEAR_S, _NEAR_SHARE = 1.0, 0.25  # how far a pause may be from its place by share of text: seconds, share of speech

# A word or, in scripts without spaces, what ends with a full stop.
_PIECE = regex.compile(r"[^\s。！？]*[。！？]+[」』”’）]*|[^\s。！？]+")
_WIDE_END = regex.compile(r"[。！？][」』”’）]*$")
_TRAILING, _LEADING = regex.compile(r"\s*(?:\.{2,}|…+|‥)$"), regex.compile(r"^(?:\.{2,}|…+|‥)\s*")


def to_sentences(cues: Sequence[Cue], activity: Activity, max_s: float) -> list[Cue]:
    """Split and join aligned cues, given in the order of time.

    max_s: maximum length of a joined sentence.  Subtitles without full stops, as Chinese ones mostly are, keep their
    cues, except that cues with "..." to show that they continue are joined.  Overlapping cues are left as they are, as
    nobody can tell when each of their sentences is heard.
    """
    mixed = {cues[i].numbers for i in overlapping(cues)}
    parts = [part for cue in cues for part in ([cue] if cue.numbers in mixed else _parted(cue, activity))]
    ends = sum(_is_end(part.text) for part in parts)
    punctuated = ends >= _PUNCTUATED * len(parts)
    made: list[Cue] = []
    for part in parts:
        apart = not made or part.numbers in mixed or made[-1].numbers in mixed
        if not apart and _goes_on(made[-1], part, punctuated, max_s):
            made[-1] = _together(made[-1], part)
        else:
            made.append(part)
    return sorted(made, key=lambda cue: cue.start_s)  # the last part of a split cue may start after the next cue


def sentence_ends(text: str) -> list[int]:
    """Return the end of each sentence of a text as a number of characters; the last is the length of the text."""
    words = [(piece.start(), piece.end()) for piece in _PIECE.finditer(text)]
    ends = []
    for (start, end), (next_start, next_end) in zip(words, words[1:], strict=False):
        if _WIDE_END.search(text, start, end) or is_sentence_end(text[start:end], text[next_start:next_end]):
            ends.append(end)
    return [*ends, len(text)]


def _parted(cue: Cue, activity: Activity) -> Iterable[Cue]:
    """Split a cue into sentences wherever there is a pause near the end of a sentence, as expected by its length."""
    ends = sentence_ends(cue.text)
    speech_s = activity.speech_s(cue.start_s, cue.end_s)
    pauses = _pauses(cue, activity) if len(ends) > 1 else []
    near_s = min(_NEAR_S, _NEAR_SHARE * speech_s)
    start_s, start = cue.start_s, 0
    for end in ends[:-1]:
        expected_s = activity.when(cue.start_s, speech_s * end / len(cue.text))
        found = [p for p in pauses if p[0] > start_s and p[0] - near_s <= expected_s <= p[1] + near_s]
        if found:
            pause_start_s, pause_end_s = min(found, key=lambda p: abs(sum(p) / 2 - expected_s))
            yield Cue(cue.numbers, start_s, pause_start_s, cue.text[start:end].strip())
            start_s, start = pause_end_s, end
    yield Cue(cue.numbers, start_s, cue.end_s, cue.text[start:].strip())


def _pauses(cue: Cue, activity: Activity) -> list[tuple[float, float]]:
    """Return the pauses between stretches of speech within a cue."""
    regions = activity.regions_within(cue.start_s, cue.end_s)
    gaps = zip(regions[:-1, 1].tolist(), regions[1:, 0].tolist(), strict=True)
    return [(a, b) for a, b in gaps if b - a >= _PAUSE_S and a > cue.start_s and b < cue.end_s]


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
