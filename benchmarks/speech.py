"""What the benchmarks share: recordings in memory as sources, joined with pauses, and the word error rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from asr.metrics import error_rate
from asr.recognizer import Opened, Source
from asr.text import normalizer

GAP_S = 0.5


def join(clips: Sequence[Tensor], rate: int) -> Tensor:
    """One recording of several, GAP_S of silence between them."""
    gap_N = torch.zeros(round(GAP_S * rate))
    return torch.cat([part for clip_N in clips for part in (clip_N, gap_N)][:-1])


def sources(audio: Mapping[str, Tensor], rate: int) -> list[Source]:
    """Waveforms (N,) at a recogniser's rate, by id, for Recognizer.transcribe_sources."""
    return [Source(id, partial(Opened, [x_N], len(x_N) / rate)) for id, x_N in audio.items()]


def english_wer(said: Sequence[str], heard: Sequence[str]) -> float:
    """Word errors in percent, both sides under the normaliser `english`."""
    normal = normalizer("english")
    return 100 * error_rate([normal(text) for text in said], [normal(text) for text in heard]).rate
