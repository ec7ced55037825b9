"""Speech activity of recordings: found in one pass, stored as one probability per detector frame.

Shapes: T frames, R stretches of speech.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.audio import stream_audio
from asr.files import make_folder, write_atomically
from asr.windows import MIN_SPEECH_S, OFF, ON, Detector

Floats = NDArray[np.floating[Any]]
LoadDetector = Callable[[int], Detector]  # takes the sample rate in hertz

_MIN_SILENCE_S = 0.1


class Activity:
    """The speech activity of a recording.

    prob_T: probability of speech for each frame of `frame_s` seconds.  duration_s, samples, rate: length of the
    recording in seconds and samples, and its sample rate.
    """

    def __init__(self, prob_T: NDArray[np.float32], frame_s: float, samples: int, rate: int) -> None:
        self.prob_T, self.frame_s, self.samples, self.rate = prob_T, frame_s, samples, rate
        self.duration_s = samples / rate
        self._edge_s = np.arange(len(prob_T) + 1) * frame_s
        self._sum_s = np.concatenate([[0.0], np.cumsum(prob_T, dtype=np.float64) * frame_s])
        self.regions = regions(prob_T, frame_s)

    def until_s(self, time_s: Floats) -> Floats:
        """Return the seconds of speech before each time; times outside the recording are clipped to it."""
        return np.interp(time_s, self._edge_s, self._sum_s)

    def speech_s(self, start_s: float, end_s: float) -> float:
        """Return the seconds of speech between two times."""
        before, after = self.until_s(np.array([start_s, end_s]))
        return float(after - before)

    def when(self, start_s: float, speech_s: Floats) -> Floats:
        """Return the times by which there have been `speech_s` seconds of speech since `start_s`."""
        return np.interp(self.until_s(np.array([start_s])) + speech_s, self._sum_s, self._edge_s)

    def regions_within(self, start_s: float, end_s: float) -> Floats:
        """Return the stretches of speech (R, 2), in seconds, that overlap the time between two times."""
        first, last = np.searchsorted(self.regions[:, 1], start_s, "right"), np.searchsorted(self.regions[:, 0], end_s)
        return self.regions[first:last]


def regions(prob_T: NDArray[np.float32], frame_s: float) -> Floats:
    """Return the stretches of speech (R, 2), in seconds, in order.

    Speech begins where its probability reaches 0.5 and lasts until it falls below 0.35.  Pauses shorter than 0.1 s are
    bridged, and stretches shorter than 0.25 s are dropped.
    """
    known_T = np.where(prob_T >= ON, 1, np.where(prob_T < OFF, 0, -1))
    last_T = np.maximum.accumulate(np.where(known_T >= 0, np.arange(len(prob_T)), -1))
    speech_T = (last_T >= 0) & (known_T[last_T] == 1)
    turns = np.flatnonzero(np.diff(np.concatenate([[0], speech_T.astype(np.int8), [0]])))
    edges_R2 = turns.reshape(-1, 2) * frame_s
    if len(edges_R2) == 0:
        return edges_R2
    pauses = edges_R2[1:, 0] - edges_R2[:-1, 1] >= _MIN_SILENCE_S
    starts, ends = edges_R2[np.append(True, pauses), 0], edges_R2[np.append(pauses, True), 1]
    return np.stack([starts, ends], axis=1)[ends - starts >= MIN_SPEECH_S]


def listen(path: Path, load_detector: LoadDetector, on_block: Callable[[float], None]) -> Activity:
    """Find the speech of a file in one pass, with one block in memory at a time.

    on_block: called with the length of each block in seconds.  Raises AudioError as `stream_audio` does.
    """
    with stream_audio(path) as stream:
        detector = load_detector(stream.sample_rate_hz)
        samples = 0

        def blocks() -> Iterator[Tensor]:
            nonlocal samples
            for block_N in stream:
                samples += len(block_N)
                on_block(len(block_N) / stream.sample_rate_hz)
                yield torch.from_numpy(block_N)

        prob_T = _joined(detector(blocks()))
        return Activity(prob_T, detector.frame_s, samples, stream.sample_rate_hz)


def listen_once(path: Path, memory: Path, load_detector: LoadDetector, on_block: Callable[[float], None]) -> Activity:
    """Return the result for this version of the file from the cache `memory`, or run `listen` and cache its result."""
    status = path.stat()
    heard_of = np.array([str(path.resolve()), str(status.st_mtime_ns), str(status.st_size)])
    known = _recall(memory, heard_of)
    if known is not None:
        on_block(known.duration_s)
        return known
    found = listen(path, load_detector, on_block)
    make_folder(memory.parent)
    with write_atomically(memory) as part:
        np.savez(
            part,
            heard_of=heard_of,
            prob_T=found.prob_T,
            frame_s=found.frame_s,
            samples=found.samples,
            rate=found.rate,
        )
    return found


def _recall(memory: Path, heard_of: NDArray[np.str_]) -> Activity | None:
    if not memory.is_file():
        return None
    try:
        with np.load(memory, allow_pickle=False) as held:
            if held["heard_of"].tolist() != heard_of.tolist():
                return None
            prob_T, frame_s = held["prob_T"].astype(np.float32), float(held["frame_s"])
            samples, rate = int(held["samples"]), int(held["rate"])
    except Exception:  # damaged: whatever NumPy and zipfile raise
        return None
    sound = prob_T.ndim == 1 and bool(np.all((prob_T >= 0) & (prob_T <= 1)))
    sound = sound and 0 < frame_s < math.inf and samples >= 0 and rate > 0
    return Activity(prob_T, frame_s, samples, rate) if sound else None


def _joined(parts: Iterable[Tensor]) -> NDArray[np.float32]:
    whole = [part.numpy() for part in parts]
    return np.concatenate(whole) if whole else np.zeros(0, np.float32)
