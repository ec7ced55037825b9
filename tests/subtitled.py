"""Cues and speech for the tests of asr.subtitling, at given times instead of detected ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.subtitling.activity import Activity
from asr.subtitling.cues import Cue

FRAME_S = 0.02
RATE = 16000

Times = Sequence[tuple[float, float]]


def cue(number: int, start_s: float, end_s: float, text: str) -> Cue:
    return Cue((number,), start_s, end_s, text)


def activity_of(speech: Iterable[tuple[float, float]], duration_s: float) -> Activity:
    """Return the speech activity of a recording with speech at the given times."""
    prob_T = np.zeros(round(duration_s / FRAME_S), np.float32)
    for start_s, end_s in speech:
        prob_T[round(start_s / FRAME_S) : round(end_s / FRAME_S)] = 1
    return Activity(prob_T, FRAME_S, round(duration_s * RATE), RATE)


class LoudIsSpeech:
    """A detector that takes loud audio for speech, for recordings at `rate` Hz."""

    frame_s = FRAME_S

    def __init__(self, rate: int) -> None:
        self.size = round(rate * FRAME_S)

    def __call__(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        whole_N = torch.cat(list(blocks))
        frames_TN = whole_N[: len(whole_N) // self.size * self.size].unfold(0, self.size, self.size)
        yield (frames_TN.abs().mean(1) > 0.01).float()


def bursts(speech: Sequence[tuple[float, float]], duration_s: float, rate: int = RATE) -> NDArray[np.float32]:
    """Return samples (N,) with noise at the times of speech and near silence elsewhere."""
    rng = np.random.default_rng(0)
    audio_N = rng.normal(0, 1e-4, round(duration_s * rate))
    for start_s, end_s in speech:
        part = slice(round(start_s * rate), round(end_s * rate))
        audio_N[part] += rng.normal(0, 0.1, len(audio_N[part]))
    return audio_N.astype(np.float32)


def conversation(turns: int, seed: int, lead_s: float = 10.0) -> list[tuple[float, float]]:
    """Return start and end of turns of 1 to 4 s with pauses of 0.4 to 5 s between them."""
    rng = np.random.default_rng(seed)
    made, at_s = [], lead_s
    for _ in range(turns):
        end_s = at_s + rng.uniform(1, 4)
        made.append((at_s, end_s))
        at_s = end_s + rng.uniform(0.4, 5)
    return made


SPEECH = conversation(24, seed=1)
LENGTH_S = SPEECH[-1][1] + 5


def stamp(seconds: float, point: str = ",") -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"


def words(i: int) -> str:
    return f"This is sentence {i}."


def srt(times: Times, offset_s: float = 0.0, text: Any = words) -> str:
    return "\n".join(
        f"{i}\n{stamp(a - offset_s)} --> {stamp(b - offset_s)}\n{text(i)}\n" for i, (a, b) in enumerate(times, start=1)
    )


def talk(folder: Path, name: str = "talk.wav", speech: Times = SPEECH, rate: int = RATE) -> Path:
    path = folder / name
    soundfile.write(path, bursts(speech, LENGTH_S, rate), rate)
    return path
