"""A cue: what a subtitle file shows from one time to another."""

from __future__ import annotations

from typing import NamedTuple


class Cue(NamedTuple):
    """Text on the screen from start to end.

    numbers: which cues of the file it is made of, counted from 1.  Times are in seconds: the file's own as it is
    read, the recording's once it is aligned.
    """

    numbers: tuple[int, ...]
    start_s: float
    end_s: float
    text: str

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


class Dropped(NamedTuple):
    """A cue that makes no cut, and the rule that says so."""

    cue: Cue
    reason: str


def overlap_s(one: Cue, two: Cue) -> float:
    """For how long both are there; below 0, the time between them."""
    return min(one.end_s, two.end_s) - max(one.start_s, two.start_s)
