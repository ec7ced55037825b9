"""Shared parts of the benchmarks: recordings as sources, their texts, joining with pauses, the word error rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from asr.errors import DataError
from asr.recognizer import Opened, Source
from asr.scoring import score
from asr.transcript import Failure, Transcript

GAP_S = 0.5
SOUND_DB = 35
FRAME_S = 0.01

Stretch = tuple[float, float]


def join(clips: Sequence[Tensor], rate: int) -> Tensor:
    """Join clips into one recording, with GAP_S of silence between them."""
    gap_N = torch.zeros(round(GAP_S * rate))
    return torch.cat([part for clip_N in clips for part in (clip_N, gap_N)][:-1])


def sound(audio_N: Tensor, rate: int) -> Stretch:
    """Return start and end of a clip's sound in seconds: the first and last 10 ms within 35 dB of the loudest."""
    level_T = 10 * torch.log10(audio_N.unfold(0, round(FRAME_S * rate), round(FRAME_S * rate)).square().mean(1) + 1e-10)
    loud = (level_T > level_T.max() - SOUND_DB).nonzero()[:, 0].tolist()
    return loud[0] * FRAME_S, (loud[-1] + 1) * FRAME_S


def sources(audio: Mapping[str, Tensor], rate: int) -> list[Source]:
    """Return sources for Recognizer.transcribe_sources from waveforms (N,), by id, at the recogniser's rate."""
    return [Source(id, partial(Opened, [x_N], len(x_N) / rate)) for id, x_N in audio.items()]


def texts_of(results: Iterable[Transcript | Failure]) -> dict[str, str]:
    """Return the texts of recordings by id.  Raises DataError if one could not be transcribed."""
    texts = {}
    for result in results:
        if isinstance(result, Failure):
            raise DataError(f"{result.id}: {result.reason}")
        texts[result.id] = result.text
    return texts


def english_wer(said: Sequence[str], heard: Sequence[str]) -> float:
    """Return the word error rate in percent, with both sides normalised by `english`."""
    return 100 * score(said, heard, metrics="wer", normalizer="english").rates["wer"].rate
