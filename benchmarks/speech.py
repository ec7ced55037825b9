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
SOUND_DB = 35
FRAME_S = 0.01

Stretch = tuple[float, float]


def join(clips: Sequence[Tensor], rate: int) -> Tensor:
    """One recording of several, GAP_S of silence between them."""
    gap_N = torch.zeros(round(GAP_S * rate))
    return torch.cat([part for clip_N in clips for part in (clip_N, gap_N)][:-1])


def sound(audio_N: Tensor, rate: int) -> Stretch:
    """Where the sound of a clip begins and ends, in seconds from its start: 10 ms within 35 dB of the loudest."""
    level_T = 10 * torch.log10(audio_N.unfold(0, round(FRAME_S * rate), round(FRAME_S * rate)).square().mean(1) + 1e-10)
    loud = (level_T > level_T.max() - SOUND_DB).nonzero()[:, 0].tolist()
    return loud[0] * FRAME_S, (loud[-1] + 1) * FRAME_S


def sources(audio: Mapping[str, Tensor], rate: int) -> list[Source]:
    """Waveforms (N,) at a recogniser's rate, by id, for Recognizer.transcribe_sources."""
    return [Source(id, partial(Opened, [x_N], len(x_N) / rate)) for id, x_N in audio.items()]


def english_wer(said: Sequence[str], heard: Sequence[str]) -> float:
    """Word errors in percent, both sides under the normaliser `english`."""
    normal = normalizer("english")
    return 100 * error_rate([normal(text) for text in said], [normal(text) for text in heard]).rate
