"""What recognition gives: a transcript of segments, a segment of words.  Times are seconds from the start."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A word with its punctuation, where it was said, and the geometric mean of its tokens' probabilities.

    White space before the word is part of the text, so that the words of a segment, joined, are its text; the
    probability leaves punctuation out.
    """

    text: str
    start_s: float
    end_s: float
    probability: float


@dataclass(frozen=True)
class Segment:
    """A stretch of speech.

    words: where timestamps were asked for, else empty.  Of the window in which it lies: log_prob, the mean
    log-probability of the tokens; no_speech, the probability that nobody speaks, where the model tells; guards, the
    names of those that stepped in.
    """

    text: str
    start_s: float
    end_s: float
    words: tuple[Word, ...] = ()
    log_prob: float = 0.0
    no_speech: float | None = None
    guards: tuple[str, ...] = ()


@dataclass(frozen=True)
class Transcript:
    """The text of a recording.

    language: as given, else as detected (in the first window), else None.  alternatives: n-best texts with scores,
    where the recording fitted into one window.  truncated: a window's text reached the length cap before it ended.
    complete: False if the work was stopped before the end, which `duration_s` then says how far it came.
    """

    id: str
    text: str
    duration_s: float
    language: str | None = None
    segments: tuple[Segment, ...] = ()
    alternatives: tuple[tuple[str, float], ...] = ()
    truncated: bool = False
    complete: bool = True


@dataclass(frozen=True)
class Failure:
    """A recording that could not be transcribed, and why."""

    id: str
    reason: str
