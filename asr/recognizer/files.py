"""Audio files as sources.

Shapes: N samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from asr.audio import AudioStream, stream_audio
from asr.errors import AudioError, printable
from asr.recognizer.pool import Opened, Source
from asr.resampling import resample_blocks


def file_source(path: str | Path, rate: int) -> Source:
    """An audio file, opened when its turn comes and read as far as it is needed; its id is the path.

    One of digital silence alone is a recording that failed: AudioError at its end.
    """
    return Source(str(path), partial(_open_sounding, path, rate))


def _open_sounding(path: str | Path, rate: int) -> Opened:
    blocks, duration_s = open_file(path, rate)
    return Opened(_sounding(path, blocks), duration_s)


def _sounding(path: str | Path, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
    silent = True
    for block_N in blocks:
        silent = silent and not block_N.any()
        yield block_N
    if silent:
        raise AudioError(f"{printable(path)}: silent: every sample is zero")


def open_file(path: str | Path, rate: int) -> Opened:
    """Open an audio file, its blocks at `rate` hertz; AudioError if it cannot be read."""
    stream = stream_audio(path)
    blocks = (torch.from_numpy(block_N) for block_N in stream)
    return Opened(_closing(stream, resample_blocks(blocks, stream.sample_rate_hz, rate)), stream.duration_s)


def _closing(stream: AudioStream, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
    with closing(stream):
        yield from blocks
