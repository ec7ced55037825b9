"""Audio files as sources.

Shapes: N samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from asr.audio import AudioStream, stream_audio
from asr.recognizer.pool import Opened, Source
from asr.resampling import resample_blocks


def file_source(path: str | Path, rate: int) -> Source:
    """An audio file, opened when its turn comes and read as far as it is needed; its id is the path."""
    return Source(str(path), partial(open_file, path, rate))


def open_file(path: str | Path, rate: int) -> Opened:
    """Open an audio file, its blocks at `rate` hertz; AudioError if it cannot be read."""
    stream = stream_audio(path)
    blocks = (torch.from_numpy(block_N) for block_N in stream)
    return Opened(_closing(stream, resample_blocks(blocks, stream.sample_rate_hz, rate)), stream.duration_s)


def _closing(stream: AudioStream, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
    with closing(stream):
        yield from blocks
