"""Cuts of a manifest as sources.  A module of its own, because importing lhotse takes seconds.

Shapes: N samples.
"""

from __future__ import annotations

from functools import partial

import torch
from lhotse.cut import Cut
from torch import Tensor

from asr.data.augment import NoiseMixer
from asr.data.cuts import language_of, load_audio, whole_file
from asr.recognizer.files import open_file
from asr.recognizer.pool import Opened, Source


def cut_source(cut: Cut, rate: int, noise: NoiseMixer | None = None) -> Source:
    """Return a cut as a source, with its own language if it has one.

    A cut of a whole file is read block by block, a part of a file at once.  noise: mixed in, the same on every call;
    such cuts are always read at once.
    """
    path = whole_file(cut)
    load = partial(_load, cut, rate, noise) if path is None or noise is not None else partial(open_file, path, rate)
    return Source(cut.id, load, language_of(cut))


def waveform(cut: Cut, rate: int) -> Tensor:
    """Return the samples of a cut, (N,); unlike load_audio, accept a whole file of digital silence."""
    path = whole_file(cut)
    return load_audio(cut, rate) if path is None else torch.cat([torch.zeros(0), *open_file(path, rate).blocks])


def _load(cut: Cut, rate: int, noise: NoiseMixer | None) -> Opened:
    audio_N = waveform(cut, rate)
    return Opened([audio_N if noise is None else noise(audio_N, cut.id, 0)[0]], cut.duration)
