"""Cutting aligned sentences out of the recording as stretches to train on: edges, padding and rules."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from asr.errors import ConfigError
from asr.subtitles import width
from asr.subtitling.activity import Activity
from asr.subtitling.cues import Cue, Dropped, overlapping

OVERLAPPING, OUTSIDE = "overlapping", "outside the recording"
TOO_SHORT, TOO_LONG, NO_SPEECH = "too short", "too long", "no speech"
TOO_FAST, TOO_SLOW = "too many characters per second", "too few characters per second"

_MOST_OUTSIDE_S = 0.5
# How far the edge of a cue may be moved to where speech begins or ends: outwards, inwards at the start, and inwards at
# the end, where cues linger.
_OUTWARDS_S, _STARTS_EARLY_S, _ENDS_LATE_S = 0.5, 1.0, 2.0


@dataclass(frozen=True)
class Rules:
    """The rules by which a cue becomes a cut.

    min_s, max_s: limits on the seconds from the start to the end of speech.  min_speech: least share of a cue in which
    somebody speaks.  min_cps, max_cps: limits on characters per second; wide (Chinese, Japanese, Korean) ones count as
    two.  pad_s: padding on either side, as far as the neighbours leave room.  Raises ConfigError for rules that no cue
    can meet.
    """

    pad_s: float = 0.3
    min_s: float = 0.3
    max_s: float = 20.0
    min_speech: float = 0.2
    min_cps: float = 1.0
    max_cps: float = 30.0

    def __post_init__(self) -> None:
        if self.pad_s < 0:
            raise ConfigError(f"pad_s (--pad) must not be negative, but is {self.pad_s:g}")
        for what, low, high in (("duration", self.min_s, self.max_s), ("cps", self.min_cps, self.max_cps)):
            if not 0 <= low < high:
                given = f"{low:g} (--min-{what}) to {high:g} (--max-{what})"
                raise ConfigError(f"no cue can pass limits of {given}: the lower must be 0 or more and below the upper")
        if not 0 <= self.min_speech <= 1:
            raise ConfigError(f"min_speech (--min-speech) is a share from 0 to 1, but is {self.min_speech:g}")


class Stretch(NamedTuple):
    """A part of a recording: the cue that is said in it, and the start and end of its cut."""

    cue: Cue
    start_s: float
    end_s: float


def cut(cues: Sequence[Cue], activity: Activity, rules: Rules) -> tuple[list[Stretch], list[Dropped]]:
    """Turn aligned cues, in the order of time, into stretches; return also dropped cues, each with the first reason."""
    mixed = overlapping(cues)
    moved = _on_speech(cues, activity)
    kept: list[Cue] = []
    dropped: list[Dropped] = []
    for i, (cue, there) in enumerate(zip(cues, moved, strict=True)):
        reason = OVERLAPPING if i in mixed else _problem(cue, there, activity, rules)
        if reason is None:
            kept.append(there)
        else:
            dropped.append(Dropped(cue, reason))
    return _padded(kept, moved, activity.duration_s, rules.pad_s), dropped


def _on_speech(cues: Sequence[Cue], activity: Activity) -> list[Cue]:
    """Move the edges of cues to where their speech begins and ends, if that is near.

    No edge moves past the middle of the gap or overlap between neighbouring cues, or stays outside the recording.
    """
    middles = [(one.end_s + two.start_s) / 2 for one, two in pairwise(cues)]
    bounds = zip([-float("inf"), *middles], [*middles, float("inf")], strict=True) if cues else ()
    moved = []
    for cue, (first_s, last_s) in zip(cues, bounds, strict=True):
        start_s, end_s = max(cue.start_s, first_s, 0.0), min(cue.end_s, last_s, activity.duration_s)
        regions = activity.regions_within(start_s, end_s)
        if len(regions):
            speech_start_s, speech_end_s = float(regions[0, 0]), float(regions[-1, 1])
            if -_OUTWARDS_S <= speech_start_s - start_s <= _STARTS_EARLY_S:
                start_s = max(speech_start_s, first_s)
            if -_ENDS_LATE_S <= speech_end_s - end_s <= _OUTWARDS_S:
                end_s = min(speech_end_s, last_s)
        moved.append(cue._replace(start_s=start_s, end_s=end_s))
    return moved


def _problem(cue: Cue, moved: Cue, activity: Activity, rules: Rules) -> str | None:
    """Return the first rule that drops a cue, None if it is kept; `moved` is the cue with its edges moved."""
    if cue.start_s < -_MOST_OUTSIDE_S or cue.end_s > activity.duration_s + _MOST_OUTSIDE_S:
        return OUTSIDE
    if activity.speech_s(cue.start_s, cue.end_s) < max(rules.min_speech * cue.duration_s, 1e-3):
        return NO_SPEECH
    if moved.duration_s < max(rules.min_s, 1e-3):
        return TOO_SHORT
    if moved.duration_s > rules.max_s:
        return TOO_LONG
    per_second = width(cue.text) / moved.duration_s
    if per_second > rules.max_cps:
        return TOO_FAST
    return TOO_SLOW if per_second < rules.min_cps else None


def _padded(kept: Sequence[Cue], all_cues: Sequence[Cue], duration_s: float, pad_s: float) -> list[Stretch]:
    """Pad stretches up to half of the way to the next cue, kept or dropped, and within the recording."""
    starts = [*sorted(cue.start_s for cue in all_cues), float("inf")]
    ends = [-float("inf"), *sorted(cue.end_s for cue in all_cues)]
    stretches = []
    for cue in kept:
        before_s, after_s = ends[bisect_right(ends, cue.start_s) - 1], starts[bisect_left(starts, cue.end_s)]
        start_s = max(0.0, cue.start_s - min(pad_s, (cue.start_s - before_s) / 2))
        end_s = min(duration_s, cue.end_s + min(pad_s, (after_s - cue.end_s) / 2))
        stretches.append(Stretch(cue, start_s, end_s))
    return stretches
