"""Cuts of a manifest as sources; apart from audio files, as importing lhotse takes seconds."""

from __future__ import annotations

from functools import partial

from lhotse.cut import Cut

from asr.data.augment import NoiseMixer
from asr.data.cuts import language_of, load_audio, whole_file
from asr.recognizer.files import open_file
from asr.recognizer.pool import Opened, Source


def cut_source(cut: Cut, rate: int, noise: NoiseMixer | None = None) -> Source:
    """A cut, in its own language if it tells one; a whole recording is read block by block, a part of one at once.

    noise: is mixed in, the same each time; a cut is then read at once.
    """
    path = whole_file(cut)
    load = partial(_load, cut, rate, noise) if path is None or noise is not None else partial(open_file, path, rate)
    return Source(cut.id, load, language_of(cut))


def _load(cut: Cut, rate: int, noise: NoiseMixer | None) -> Opened:
    audio_N = load_audio(cut, rate)
    return Opened([audio_N if noise is None else noise(audio_N, cut.id, 0)[0]], cut.duration)
