"""The audio tracks of a file: a film may have one for each language."""

from __future__ import annotations

import os
from dataclasses import dataclass

from asr.audio.files import TIMEOUT_S, answer_about


@dataclass(frozen=True)
class Track:
    """An audio track, with the language and title that the container states, None if it states none."""

    index: int
    language: str | None
    title: str | None


@dataclass(frozen=True)
class Tracks:
    """The audio tracks of a file, at least one.

    plain: whether libsndfile reads the file, so that any part can be read without decoding from the start.
    duration_s: length according to the header, None if it does not say.
    """

    tracks: tuple[Track, ...]
    plain: bool
    duration_s: float | None


def audio_tracks(path: str | os.PathLike[str]) -> Tracks:
    """Return the audio tracks of a file without decoding it.  Raises AudioError as `open_audio` does."""
    _, answer = answer_about(path, path, TIMEOUT_S, 0, describe=True)
    tracks = [Track(i, said.get("language"), said.get("title")) for i, said in enumerate(answer["tracks"])]
    return Tracks(tuple(tracks), answer["plain"], answer["duration_s"])
