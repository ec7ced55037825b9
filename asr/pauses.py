"""Pauses in a waveform, and word times that respect them.

Attention locates a word to within about a fifth of a second, and gives the silence between two words to one of them.
Where the recording is quiet for a while nobody speaks, so word boundaries near such a pause are moved to its ends.
Times are in seconds.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

HOP_S = 0.02
SHORTEST_S = 0.15  # the closures of plosives are shorter
REACH_S = 0.5  # attention is rarely further off
MARGIN_S = 0.05  # words begin and end below the threshold

Times = list[tuple[float, float]]


def find_pauses(audio_N: Tensor, rate: int) -> Times:
    """Find quiet stretches that last at least 0.15 s or touch the start or end of the recording.

    A frame is quiet if its level is in the lowest 30 % of the range, in dB, between the recording's soft and loud
    frames (the 5th and 95th percentiles of their energy, at most 60 dB apart).  This is about 42 dB below speech in a
    clean recording, and a few dB above the noise in a noisy one.
    """
    hop = round(HOP_S * rate)
    frames_TW = F.pad(audio_N.float(), (hop // 2, 2 * hop)).unfold(0, 2 * hop, hop)
    level_T = 10 * torch.log10(frames_TW.square().mean(1) + 1e-10)[: len(audio_N) // hop + 1]
    soft, loud = torch.quantile(level_T, level_T.new_tensor([0.05, 0.95])).tolist()
    soft = max(soft, loud - 60)
    quiet_T = F.pad((level_T < soft + 0.3 * (loud - soft)).int(), (1, 1))
    turns = quiet_T.diff().nonzero()[:, 0].tolist()
    ends_s = len(audio_N) / rate
    found = [(start * HOP_S, min(end * HOP_S, ends_s)) for start, end in zip(turns[::2], turns[1::2], strict=True)]
    return [(a, b) for a, b in found if b - a > SHORTEST_S - 1e-6 or a == 0 or b == ends_s]


def keep_to_pauses(words: Times, pauses: Times, duration_s: float) -> Times:
    """Move starts and ends of words to nearby pauses; the words must be in order, and the results do not overlap."""
    starts, ends = [a for a, _ in words], [b for _, b in words]
    gaps = list(zip([0.0, *ends], [*starts, duration_s], strict=True))  # gap k precedes word k
    near: dict[int, Times] = {}
    for pause in pauses if words else ():
        distance, _, k = min((*_distance(pause, gap), k) for k, gap in enumerate(gaps))
        if distance <= REACH_S:
            near.setdefault(k, []).append(pause)
    for k, found in near.items():
        gap_start, gap_end = gaps[k]
        before = [(a, b) for a, b in found if a <= gap_start + REACH_S]
        after = [(a, b) for a, b in found if b >= gap_end - REACH_S]
        if before and k > 0:
            a, b = before[0]
            ends[k - 1] = a + min(MARGIN_S, (b - a) / 2)
        if after and k < len(words):
            a, b = after[-1]
            starts[k] = b - min(MARGIN_S, (b - a) / 2)
    return _in_order(starts, ends)


def _distance(pause: tuple[float, float], gap: tuple[float, float]) -> tuple[float, float]:
    """Return the seconds between a pause and a gap between words, 0 if they meet, and the negative overlap."""
    overlap = min(pause[1], gap[1]) - max(pause[0], gap[0])
    return max(0.0, gap[0] - pause[1], pause[0] - gap[1]), -overlap


def _in_order(starts: list[float], ends: list[float]) -> Times:
    ordered, last = [], 0.0
    for start, end in zip(starts, ends, strict=True):
        start = max(start, last)
        last = max(end, start)
        ordered.append((start, last))
    return ordered
