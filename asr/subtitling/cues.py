"""Cues of subtitle files."""

from __future__ import annotations

from typing import NamedTuple


class Cue(NamedTuple):
    """Text that is shown from start to end.

    numbers: the cues of the file that it is made of, counted from 1.  Times are in seconds: those of the file when it
    is read, those of the recording once it is aligned.
    """

    numbers: tuple[int, ...]
    start_s: float
    end_s: float
    text: str

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


class Dropped(NamedTuple):
    """A cue that becomes no cut, and the rule that dropped it."""

    cue: Cue
    reason: str


def overlap_s(one: Cue, two: Cue) -> float:
    """Return for how many seconds both cues are shown; a negative value is the time between them."""
    return min(one.end_s, two.end_s) - max(one.start_s, two.start_s)
