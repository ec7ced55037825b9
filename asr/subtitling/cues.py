"""Cues of subtitle files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from asr.text.scripts import one_after_another

_MOST_OVERLAP_S = 0.5


class Cue(NamedTuple):
    """Text that is shown from start to end.

    numbers: the cues of the file that it is made of, counted from 1.  Times are in seconds: those of the file when it
    is read, those of the recording once it is aligned.  text: its lines; those of a sentence are on one.
    """

    numbers: tuple[int, ...]
    start_s: float
    end_s: float
    text: str

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s

    @property
    def line(self) -> str:
        """The text on one line."""
        return one_after_another(self.text.split("\n"))


class Dropped(NamedTuple):
    """A cue that becomes no cut, and the rule that dropped it."""

    cue: Cue
    reason: str


def overlapping(cues: Sequence[Cue]) -> set[int]:
    """Return the indices of cues, given in the order of time, that overlap too much to tell which of them is heard."""
    found: set[int] = set()
    last = 0  # the cue so far that ends last
    for i in range(1, len(cues)):
        shorter_s = min(cues[last].duration_s, cues[i].duration_s)
        if _overlap_s(cues[last], cues[i]) > min(_MOST_OVERLAP_S, shorter_s / 2):
            found |= {last, i}
        last = max(last, i, key=lambda k: cues[k].end_s)
    return found


def _overlap_s(one: Cue, two: Cue) -> float:
    """Return for how many seconds both cues are shown; a negative value is the time between them."""
    return min(one.end_s, two.end_s) - max(one.start_s, two.start_s)
