"""Cuts of a manifest as sources; apart from audio files, as importing lhotse takes seconds."""

from __future__ import annotations

from functools import partial

from lhotse.cut import Cut

from asr.data.cuts import language_of, load_audio, whole_file
from asr.recognizer.files import open_file
from asr.recognizer.pool import Opened, Source


def cut_source(cut: Cut, rate: int) -> Source:
    """A cut, in its own language if it tells one; a whole recording is read block by block, a part of one at once."""
    path = whole_file(cut)
    load = partial(_load, cut, rate) if path is None else partial(open_file, path, rate)
    return Source(cut.id, load, language_of(cut))


def _load(cut: Cut, rate: int) -> Opened:
    return Opened([load_audio(cut, rate)], cut.duration)
