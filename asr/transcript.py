"""Results of recognition: transcripts made of segments, which are made of words.

Times are in seconds from the start of the recording.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A word with its punctuation, its times, and the geometric mean of its tokens' probabilities.

    `text` includes the white space before the word, so that concatenating all words of a recording gives its text.
    `probability` ignores punctuation.
    """

    text: str
    start_s: float
    end_s: float
    probability: float


@dataclass(frozen=True)
class Segment:
    """A stretch of speech.

    words: empty unless word timestamps were requested.  The other fields describe the window that contains the
    segment.  log_prob: mean log-probability of its tokens.  no_speech: probability that nobody speaks, if the model
    estimates it.  guards: names of the guards that intervened.
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

    language: as given, else as detected in the first window, else None.  alternatives: n-best texts with scores, if
    the recording fits into one window.  truncated: whether the text of some window reached the length cap before it
    ended.  complete: False if transcription was stopped before the end; `duration_s` is then the end of the last
    decoded window, and earlier ones may be missing, too, since windows are decoded in order of length.
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
    """A recording that could not be transcribed, with the reason."""

    id: str
    reason: str
