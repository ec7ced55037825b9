"""What audio a file holds: a film may have a track for each language."""

from __future__ import annotations

import os
from dataclasses import dataclass

from asr.audio.child import ask
from asr.audio.files import TIMEOUT_S, error_about, problem_of, request_for


@dataclass(frozen=True)
class Track:
    """An audio track; language and title as the container gives them, None where it does not."""

    index: int
    language: str | None
    title: str | None


@dataclass(frozen=True)
class Tracks:
    """The audio tracks of a file, of which there is at least one.

    plain: libsndfile reads the file, so that a part of it costs no decoding from the start.  duration_s: by the
    header, None where that does not tell.
    """

    tracks: tuple[Track, ...]
    plain: bool
    duration_s: float | None


def audio_tracks(path: str | os.PathLike[str], *, timeout_s: float = TIMEOUT_S) -> Tracks:
    """Find the audio tracks of a file, without decoding it.  Raises AudioError as `open_audio` does."""
    problem = problem_of(path)
    if problem is None:
        _, answer = ask(request_for(path, timeout_s, 0, describe=True))
        problem = answer.get("error")
        if problem is None:
            tracks = [Track(i, said.get("language"), said.get("title")) for i, said in enumerate(answer["tracks"])]
            return Tracks(tuple(tracks), answer["plain"], answer["duration_s"])
    raise error_about(path, problem)
