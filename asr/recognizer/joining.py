"""Joining the windows of a recording into its transcript."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

from asr.decode.search import Hypothesis
from asr.errors import printable
from asr.recognizer.decoded import Decoded
from asr.recognizer.pool import Recording
from asr.text.scripts import seam
from asr.transcript import Failure, Segment, Transcript
from asr.words import split


def result_of(recording: Recording, text_of: Callable[[Hypothesis], str]) -> Transcript | Failure:
    """Return the result for a recording, made of the windows that are decoded."""
    if recording.problem is not None:
        return Failure(recording.id, recording.problem)
    decoded = [(times, found) for times, found in zip(recording.windows, recording.found, strict=True) if found]
    truncated = any(found.hypotheses[0].truncated for _, found in decoded)
    if truncated:
        warnings.warn(f"{printable(recording.id)}: the text reached the length cap before it ended", stacklevel=2)
    text, segments = "", []
    for times, found in decoded:
        said = text_of(found.hypotheses[0])
        between = seam(text, said) if said else ""
        segments += _segments(*times, found, said, between)
        text += between + said
    complete = recording.whole and len(decoded) == len(recording.found)
    return Transcript(
        recording.id,
        text,
        recording.heard_s if complete else max((end_s for (_, end_s), _ in decoded), default=0.0),
        decoded[0][1].language if decoded else recording.language,
        tuple(segments),
        tuple((text_of(h), h.score) for h in decoded[0][1].hypotheses) if len(decoded) == 1 else (),
        truncated,
        complete,
    )


def _segments(start_s: float, end_s: float, found: Decoded, text: str, between: str) -> list[Segment]:
    """Return the text of a window from `start_s` to `end_s`, split into segments if its words have times.

    between: the white space that separates it from the text of the windows before.
    """
    if not text and not found.guards:
        return []
    words = [replace(w, start_s=round(start_s + w.start_s, 3), end_s=round(start_s + w.end_s, 3)) for w in found.words]
    if words:
        words[0] = replace(words[0], text=between + words[0].text.lstrip())
    said = tuple(words)
    whole = Segment(text, round(start_s, 3), round(end_s, 3), said, found.log_prob, found.no_speech, found.guards)
    return split(whole) if words else [whole]
