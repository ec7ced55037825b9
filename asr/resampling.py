"""Resampling of a waveform in memory, and of a recording that comes in blocks.

Shapes: N samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache

import soxr
import torch
import torch.nn.functional as F
import torchaudio.transforms as T
from torch import Tensor

BLOCK_S = 10.0
_LARGEST_STEP = 1000  # torchaudio's kernel grows with the distance of coinciding samples: 10 GB for 44099 Hz
# torchaudio's low-pass filter: zero crossings on each side, and the cutoff relative to the lower Nyquist frequency.
_CROSSINGS, _ROLLOFF = 6, 0.99


def resample(audio_N: Tensor, from_hz: int, to_hz: int) -> Tensor:
    """Resample one waveform with a band-limited filter: (N,) -> (ceil(N * to / from),)."""
    if from_hz == to_hz:
        return audio_N
    if from_hz // math.gcd(from_hz, to_hz) > _LARGEST_STEP:
        length = math.ceil(len(audio_N) * to_hz / from_hz)
        resampled_N = torch.from_numpy(soxr.resample(audio_N.numpy(), from_hz, to_hz))
        return F.pad(resampled_N, (0, length - len(resampled_N)))
    resampled: Tensor = _resampler(from_hz, to_hz)(audio_N)
    return resampled


@lru_cache(maxsize=16)
def _resampler(from_hz: int, to_hz: int) -> T.Resample:
    """Return torchaudio's resampler, whose filter takes as long to compute as filtering a short clip."""
    return T.Resample(from_hz, to_hz, lowpass_filter_width=_CROSSINGS, rolloff=_ROLLOFF, dtype=torch.float32)


def resample_blocks(blocks: Iterable[Tensor], from_hz: int, to_hz: int) -> Iterator[Tensor]:
    """Resample a recording that comes in blocks (N,) of any size; the joined result is `resample` of the whole.

    About two blocks of BLOCK_S are kept in memory.  The values do not depend on where the blocks end.
    """
    if from_hz == to_hz:
        return iter(blocks)
    step = from_hz // math.gcd(from_hz, to_hz)
    if step > _LARGEST_STEP:
        return _by_soxr(blocks, from_hz, to_hz)
    return _by_halos(regroup(blocks, max(1, round(BLOCK_S * from_hz / step)) * step), step, from_hz, to_hz)


def regroup(blocks: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Yield the same samples in blocks of `size`; the last block may be shorter, but is never empty."""
    parts: list[Tensor] = []
    held = 0
    for block_N in blocks:
        parts.append(block_N)
        held += len(block_N)
        if held >= size:
            *whole, rest_N = torch.cat(parts).split(size)
            if len(rest_N) == size:
                whole, rest_N = [*whole, rest_N], rest_N[:0]
            yield from whole
            parts, held = [rest_N], len(rest_N)
    if held:
        yield torch.cat(parts)


def _by_halos(blocks: Iterator[Tensor], step: int, from_hz: int, to_hz: int) -> Iterator[Tensor]:
    """Resample each block, whose length is a multiple of `step`, with as much of its neighbours as the filter needs."""
    reach = math.ceil(_CROSSINGS * from_hz / (min(from_hz, to_hz) * _ROLLOFF))
    halo = -(-reach // step) * step
    cut = halo * to_hz // from_hz
    before_N, block_N = torch.zeros(halo), next(blocks, None)
    while block_N is not None:
        after_N = next(blocks, None)
        right_N = torch.zeros(0) if after_N is None else after_N[:halo]
        length = math.ceil(len(block_N) * to_hz / from_hz)
        yield resample(torch.cat([before_N, block_N, right_N]), from_hz, to_hz)[cut : cut + length]
        before_N, block_N = torch.cat([before_N, block_N])[-halo:], after_N


def _by_soxr(blocks: Iterable[Tensor], from_hz: int, to_hz: int) -> Iterator[Tensor]:
    stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32")
    taken = given = 0
    for block_N in blocks:
        taken += len(block_N)
        resampled_N = torch.from_numpy(stream.resample_chunk(block_N.numpy()))
        given += len(resampled_N)
        yield resampled_N
    rest_N = torch.from_numpy(stream.resample_chunk(torch.zeros(0).numpy(), last=True))
    length = math.ceil(taken * to_hz / from_hz)
    yield F.pad(rest_N, (0, length - given - len(rest_N)))
