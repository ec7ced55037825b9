"""Assigning the text of subtitles in other languages to stretches of a recording."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from asr.subtitling.cues import Cue
from asr.text.scripts import one_after_another

WITHIN, COVERED = 0.7, 0.5
NO_CUE, NO_MATCH = "no cue at its time", "cues do not match its time"


def text_within(cues: Sequence[Cue], start_s: float, end_s: float) -> str | None:
    """Return the text of aligned cues, given in the order of time, between two times; None if they do not match.

    They match if every overlapping cue has at least 70 % of its time inside or at least 70 % outside, and those inside
    cover at least half of the stretch.
    """
    inside, covered_s = [], 0.0
    for cue in _around(cues, start_s, end_s):
        shared_s = min(cue.end_s, end_s) - max(cue.start_s, start_s)
        share = shared_s / max(cue.duration_s, 1e-6)
        if share >= WITHIN:
            inside.append(cue.line)
            covered_s += shared_s
        elif share > 1 - WITHIN:
            return None
    return one_after_another(inside) if inside and covered_s >= COVERED * (end_s - start_s) else None


def why_none(cues: Sequence[Cue], start_s: float, end_s: float) -> str:
    """Return why `text_within` finds no text."""
    return NO_MATCH if any(cue.end_s > start_s for cue in _around(cues, start_s, end_s)) else NO_CUE


def _around(cues: Sequence[Cue], start_s: float, end_s: float) -> Sequence[Cue]:
    """Return all cues between two times, and some before; cues may overlap, so that their ends need not be in order."""
    last = bisect_left(cues, end_s, key=lambda cue: cue.start_s)
    first = bisect_right(cues, start_s - 60, hi=last, key=lambda cue: cue.start_s)  # no cue lasts a minute
    return cues[first:last]
