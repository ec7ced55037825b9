"""How far a subtitle file is off: one offset and one drift, found by matching the times of its cues to speech.

True time = offset + (1 + drift) * cue time.  Subtitles are made for another release of a film more often than not: a
longer intro is an offset, another frame rate a drift.  What speaks for an offset and a drift is the speech that the
cues then cover.

1. For every drift of a grid, the covered speech at all offsets by cross-correlation (FFT) in frames of 0.1 s; the
   drifts are compared by the correlation coefficient, as slower cues cover more.
2. The best one is refined on the speech of every frame, without FFT: how much speech lies between the two times of a
   cue is a difference of a running sum.
3. A drift other than none is taken if the cues, one by one, gain by it: a t-test, as on a short recording some drift
   always fits a little better by chance.
4. The confidence is the share of bootstrap resamples of the cues whose best offset is the same: cues that fit by
   chance agree on nothing.

This is our own code, with NumPy alone, since it decides what is trained on: the programs that align subtitles
(ffsubsync, alass) write a subtitle file and tell no confidence by which to leave a recording out.

Shapes: C cues, L offsets, D drifts, T frames, K resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asr.subtitling.activity import Activity, Floats

MAX_OFFSET_S = 60.0
MAX_DRIFT = 0.002
# Film shown as PAL video and back, and film's 24 frames a second for what was counted as 23.976.
CLASSIC_RATIOS = (25 / 23.976, 23.976 / 25, 25 / 24, 24 / 25, 24 / 23.976, 23.976 / 24)
MIN_CONFIDENCE = 0.9
MIN_CUES = 5

_FRAME_S = 0.1
_SAME_S = 0.5  # offsets as near as this are the same one
_FINE_S = 0.02
_MISFIT_S = 0.3  # between neighbours of the grid of drifts, at the ends of the recording
_MIN_GAIN = 3.0  # standard errors
_RESAMPLES = 200
_SMOOTH_S = 0.15


@dataclass(frozen=True)
class Alignment:
    """True time = offset_s + (1 + drift) * cue time.

    confidence: the share of resamples of the cues that agree, 0 to 1.  rival: the speech covered at the best offset
    that is another one, as a share of that at the best.
    """

    offset_s: float
    drift: float
    confidence: float
    rival: float

    @property
    def trusted(self) -> bool:
        return self.confidence >= MIN_CONFIDENCE

    def time_s(self, cue_s: float) -> float:
        """The recording's time of a time in the subtitle file."""
        return self.offset_s + (1 + self.drift) * cue_s


class _Peak(NamedTuple):
    drift: float
    offset_s: float


def align(activity: Activity, cues_C2: Floats) -> Alignment:
    """Find the offset and drift of cues, given by their starts and ends in seconds.

    Confidence is 0 where there are fewer than five cues or no speech: nothing can be found.
    """
    if len(cues_C2) < MIN_CUES or activity.until_s(np.array([activity.duration_s]))[0] <= 0:
        return Alignment(0.0, 0.0, 0.0, 1.0)
    still = _refined(activity, cues_C2, _coarse(activity, cues_C2, np.zeros(1)))
    best = _refined(activity, cues_C2, _coarse(activity, cues_C2, drifts(activity.duration_s)))
    if best.drift and _gain(activity, cues_C2, still, best) < _MIN_GAIN:
        best = still
    confidence, rival = _agreement(activity, cues_C2, best)
    return Alignment(best.offset_s, best.drift, confidence, rival)


def drifts(duration_s: float) -> Floats:
    """The grid: -0.2 % to 0.2 %, so dense that neighbours hardly differ over the recording, and the classic ratios."""
    steps = int(np.ceil(MAX_DRIFT * duration_s / _MISFIT_S))
    return np.concatenate([np.arange(-steps, steps + 1) * (MAX_DRIFT / max(1, steps)), np.array(CLASSIC_RATIOS) - 1])


def _coarse(activity: Activity, cues_C2: Floats, drifts_D: Floats) -> _Peak:
    """The drift and offset of the highest correlation coefficient between cues and speech, both 0 outside."""
    reach = round(MAX_OFFSET_S / _FRAME_S)
    last_s = max(activity.duration_s, float(cues_C2.max()) * (1 + drifts_D.max()))
    frames = int(np.ceil(last_s / _FRAME_S)) + 1
    size = 1 << (frames + 2 * reach - 1).bit_length()  # so long that nothing wraps around
    edge_s = np.arange(frames + 1) * _FRAME_S
    speech_T = np.diff(activity.until_s(edge_s)) / _FRAME_S
    spectrum_X = np.fft.rfft(speech_T, size)
    total = frames + 2 * reach
    spread = np.sqrt(np.square(speech_T).sum() * total - speech_T.sum() ** 2)
    best, found = -np.inf, _Peak(0.0, 0.0)
    for drift in drifts_D:
        cues_T = np.diff(_shown_s(cues_C2 * (1 + drift), edge_s)) / _FRAME_S
        product_T = np.fft.irfft(spectrum_X * np.fft.rfft(cues_T, size).conj(), size)
        covered_L = np.concatenate([product_T[-reach:], product_T[: reach + 1]])
        deviation = np.sqrt(np.square(cues_T).sum() * total - cues_T.sum() ** 2)
        score_L = (covered_L * total - speech_T.sum() * cues_T.sum()) / (spread * deviation + 1e-9)
        at = int(score_L.argmax())
        if score_L[at] > best:
            best, found = float(score_L[at]), _Peak(float(drift), (at - reach) * _FRAME_S)
    return found


def _shown_s(cues_C2: Floats, edge_s: Floats) -> Floats:
    """For how long cues were shown up to each time; those that overlap count once."""
    cues_C2 = cues_C2[np.argsort(cues_C2[:, 0])]
    ends = np.maximum.accumulate(cues_C2[:, 1])
    starts = np.maximum(cues_C2[:, 0], np.concatenate([[0.0], ends[:-1]]))
    times = np.stack([np.minimum(starts, ends), ends], axis=1).ravel()
    shown = np.stack([np.zeros(len(ends)), np.maximum(ends - starts, 0)], axis=1).ravel().cumsum()
    return np.interp(edge_s, times, shown)


def _covered(activity: Activity, cues_C2: Floats, drift: float, offsets_L: Floats) -> Floats:
    """Seconds of speech that each cue covers at each offset, (C, L)."""
    times_2C1 = (cues_C2 * (1 + drift)).T[..., None]
    start_CL, end_CL = (activity.until_s(times_C1 + offsets_L) for times_C1 in times_2C1)
    return np.asarray(end_CL - start_CL)


def _refined(activity: Activity, cues_C2: Floats, peak: _Peak) -> _Peak:
    """The best offset near a peak, and drift unless that is none: the covered speech, smoothed, on a fine grid.

    Cues are turned about their middle, so that another drift needs no other offset.
    """
    middle_s = float(cues_C2.mean())
    at_s = peak.offset_s + peak.drift * middle_s
    span = np.arange(-1.0, 1.0 + _FINE_S / 2, _FINE_S)
    half_s = max(1.0, float(cues_C2.max() - cues_C2.min()) / 2)
    turns = np.arange(-2, 2.01, 0.25) * _MISFIT_S / half_s if peak.drift else np.zeros(1)
    best, found = -np.inf, peak
    for drift in peak.drift + turns:
        around_L = at_s - drift * middle_s + span
        score_L = _smoothed(_covered(activity, cues_C2, float(drift), around_L).sum(axis=0))
        at = int(score_L.argmax())
        if score_L[at] > best:
            best, found = float(score_L[at]), _Peak(float(drift), float(around_L[at]))
    return found


def _smoothed(values_L: Floats) -> Floats:
    """A Gaussian over neighbouring offsets: times of cues are that rough, and the top of the sum is flat."""
    reach = round(3 * _SMOOTH_S / _FINE_S)
    weights = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) * _FINE_S / _SMOOTH_S))
    return np.convolve(np.pad(values_L, reach, mode="edge"), weights / weights.sum(), mode="valid")


def _gain(activity: Activity, cues_C2: Floats, one: _Peak, two: _Peak) -> float:
    """By how many standard errors each cue, on average, covers more of its time with speech at the second."""
    shares = [
        _covered(activity, cues_C2, peak.drift, np.array([peak.offset_s]))[:, 0] / (1 + peak.drift)
        for peak in (one, two)
    ]
    more_C = shares[1] - shares[0]
    return float(more_C.mean() / (more_C.std(ddof=1) / np.sqrt(len(more_C)) + 1e-9))


def _agreement(activity: Activity, cues_C2: Floats, peak: _Peak) -> tuple[float, float]:
    """The share of resamples that agree with the peak, and how much the best other offset covers beside it."""
    first, last = (int((edge_s - peak.offset_s) / _FRAME_S) for edge_s in (-MAX_OFFSET_S, MAX_OFFSET_S))
    offsets_L = peak.offset_s + np.arange(first, last + 1) * _FRAME_S
    covered_CL = _covered(activity, cues_C2, peak.drift, offsets_L)
    same_L = np.abs(offsets_L - peak.offset_s) <= _SAME_S
    cues = len(cues_C2)
    weights_KC = np.random.default_rng(0).multinomial(cues, np.full(cues, 1 / cues), size=_RESAMPLES)
    best_K = (weights_KC @ covered_CL).argmax(axis=1)
    total_L = covered_CL.sum(axis=0)
    rival = float(total_L[~same_L].max(initial=0.0) / max(total_L[same_L].max(), 1e-9))
    return float(same_L[best_K].mean()), rival
