"""Audio as sources: paths, open files, and samples in memory.

Shapes: N samples.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.audio import RATES_HZ, AudioStream, Readable, stream_audio
from asr.errors import AsrError, AudioError, printable
from asr.files import audio_in
from asr.recognizer.pool import Opened, Source
from asr.resampling import resample_blocks

Sound = str | os.PathLike[str] | Readable | NDArray[np.floating[Any]] | Tensor
# Floats may exceed 1 a little; 16-bit integers that were cast without scaling exceed it by far.
_LOUDEST = 16.0
_BLOCK_S = 30.0


def to_source(sound: object, rate: int, sample_rate: int | None = None) -> Source:
    """Turn a Sound into a source: a path, a file open in binary mode, or mono samples.

    sample_rate: the rate of samples in hertz; for files it must be None.  Raises AudioError for anything else.
    """
    if isinstance(sound, np.ndarray | Tensor):
        samples_N = _checked(sound)
        return Source("array", partial(_open_array, samples_N, _checked_rate(sample_rate), rate))
    if isinstance(sound, str | os.PathLike):
        source = file_source(os.fspath(sound), rate)
    elif isinstance(sound, Readable):
        source = _open_file_source(sound, rate)
    else:
        kind = type(sound).__name__
        hint = "; io.BytesIO makes a file of them" if isinstance(sound, bytes | bytearray | memoryview) else ""
        raise AudioError(f"audio is a path, a file open in binary mode or an array of samples, not {kind}{hint}")
    if sample_rate is not None:
        raise AudioError(f"{printable(source.id)}: sample_rate is for arrays of samples; a file tells its own")
    return source


def file_source(path: str | Path, rate: int) -> Source:
    """Return an audio file as a source, which is opened when its turn comes and read on demand; its id is the path.

    A file of nothing but digital silence fails: AudioError at its end.
    """
    return Source(str(path), partial(_open_sounding, path, rate, str(path)))


def file_sources(path: str | Path, rate: int) -> Iterator[Source]:
    """Yield a file as a source; for a folder, its audio files, and each of its problems as a source that fails."""
    if not os.path.isdir(path):
        yield file_source(path, rate)
        return
    found = audio_in(os.fspath(path))
    yield from (file_source(file, rate) for file in found.files)
    yield from (Source(str(path), partial(refuse, problem)) for problem in found.problems)


def refuse(problem: str) -> Opened:
    """Raise AsrError: the `open` of a source with a problem that is known before it is opened."""
    raise AsrError(printable(problem))


def open_file(file: str | Path | Readable, rate: int, name: str | None = None) -> Opened:
    """Open an audio file as blocks at `rate` hertz.  Raises AudioError, naming `name`, if it cannot be read."""
    stream = stream_audio(file, name=name)
    blocks = (torch.from_numpy(block_N) for block_N in stream)
    return Opened(_closing(stream, resample_blocks(blocks, stream.sample_rate_hz, rate)), stream.duration_s)


def _open_file_source(file: Readable, rate: int) -> Source:
    named = getattr(file, "name", None)  # an int for a file opened by its descriptor, absent for BytesIO
    name = named if isinstance(named, str) else "open file"
    try:
        data = file.read(0)
    except (OSError, ValueError) as e:  # closed, or opened for writing only
        raise AudioError(f"{printable(name)}: cannot be read: {printable(e)}") from None
    if not isinstance(data, bytes):
        raise AudioError(f"{printable(name)}: is open as text; open it in binary mode, 'rb'")
    return Source(name, partial(_open_sounding, file, rate, name))


def _open_sounding(file: str | Path | Readable, rate: int, name: str) -> Opened:
    blocks, duration_s = open_file(file, rate, name)
    return Opened(_sounding(name, blocks), duration_s)


def _open_array(samples_N: Tensor, from_hz: int, rate: int) -> Opened:
    blocks = resample_blocks(samples_N.split(round(_BLOCK_S * from_hz)), from_hz, rate)
    return Opened(_sounding("array", blocks), len(samples_N) / from_hz)


def _checked(sound: NDArray[Any] | Tensor) -> Tensor:
    """Return a copy of the samples as float32 on the CPU.  Raises AudioError if they are not mono floats in range."""
    shape = tuple(sound.shape)
    if len(shape) != 1:
        raise AudioError(f"array: samples are those of one channel, (N,), not of shape {shape}; mix them down")
    is_float = sound.is_floating_point() if isinstance(sound, Tensor) else np.issubdtype(sound.dtype, np.floating)
    if not is_float:
        raise AudioError(f"array: samples are floats from -1 to 1, not {sound.dtype}; divide those of int16 by 32768")
    if not len(sound):
        raise AudioError("array: it holds no samples")
    if isinstance(sound, Tensor):
        samples_N = sound.detach().to("cpu", torch.float32, copy=True)
    else:
        samples_N = torch.from_numpy(np.array(sound, dtype=np.float32))
    if not samples_N.isfinite().all():
        raise AudioError("array: it has samples that are not finite numbers (NaN or infinite)")
    if (peak := float(samples_N.abs().max())) > _LOUDEST:
        raise AudioError(f"array: samples are floats from -1 to 1, not up to {peak:g}; divide those of int16 by 32768")
    return samples_N


def _checked_rate(sample_rate: int | None) -> int:
    low, high = RATES_HZ
    if sample_rate is None:
        raise AudioError("array: give its sample_rate, in hertz, too")
    try:
        hertz = operator.index(sample_rate)
    except TypeError:
        hertz = 0
    if not low <= hertz <= high:
        raise AudioError(f"array: sample_rate {sample_rate!r}: give a whole number of hertz from {low} to {high}")
    return hertz


def _sounding(name: str, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
    silent = True
    for block_N in blocks:
        silent = silent and not block_N.any()
        yield block_N
    if silent:
        raise AudioError(f"{printable(name)}: silent: every sample is zero")


def _closing(stream: AudioStream, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
    with closing(stream):
        yield from blocks
