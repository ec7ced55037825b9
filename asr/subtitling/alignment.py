"""Alignment of a subtitle file: finds one offset and one drift by matching the times of its cues to speech.

True time = offset + (1 + drift) * cue time.  Most subtitles were made for another release of a film: a longer intro
shows as an offset, another frame rate as a drift.  An offset and a drift are judged by the speech that the cues cover
with them.

1. For every drift of a grid (-0.2 % to 0.2 %), the covered speech at all offsets is computed by cross-correlation (FFT)
   in frames of 0.1 s.  Drifts are compared by the correlation coefficient, as stretched cues cover more.
2. Cues stay on the screen longer than the speech lasts, so that they can be read, and would fit as well a little
   earlier.  How long they linger is found by shortening them: covered speech counts for a cue, covered silence against
   it.  (The speech between the two times of a cue is a difference of a running sum.)  Offset and drift are then refined
   by how well cues begin where speech sets in and, with half the weight, end where it stops.
3. On a short recording, some drift always fits a little better by chance.  The drift is therefore shrunk towards zero
   (to the mean of a normal posterior), depending on how well this number of cues, this far apart, determines a drift.
4. The ratios between the frame rates of film and PAL video, which are far from zero drift, are tried in the same way;
   one of them is chosen if the cues gain by it individually (a paired t-test).
5. The confidence is the share of bootstrap resamples of the cues that have the same best offset: cues that fit by
   chance do not agree.

This is our own code, on NumPy alone, because it decides what is trained on: existing programs that align subtitles
(ffsubsync, alass) write a subtitle file, but report no confidence by which a recording could be rejected.

Shapes: C cues, L offsets, D drifts, T frames, K resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asr.subtitling.activity import Activity, Floats

MAX_OFFSET_S = 60.0
MAX_DRIFT = 0.002
# Film shown as PAL video and back.  (24 instead of 23.976 frames per second is 0.1 %, which the grid covers.)
CLASSIC_RATIOS = (25 / 23.976, 23.976 / 25, 25 / 24, 24 / 25)
MAX_LINGER_S = 2.0
MIN_CONFIDENCE = 0.8
MIN_CUES = 5

_FRAME_S = 0.1
_SHORTEST_S = 0.5  # least length of a shortened cue
_SAME_S = 0.5  # offsets this close count as the same
_FINE_S = 0.02
_MISFIT_S = 0.3  # difference between neighbouring drifts of the grid at the end of the recording
_DRIFT_SPREAD, _TIME_SPREAD_S = 0.001, 0.4  # standard deviations of drifts and of cue times
_LEAST_SHARE = 0.5  # of the usual speech in a cue; time with less of it counts as a pause after the cue
_MIN_GAIN = 3.0  # standard errors
_RESAMPLES = 200
_EDGE_S = 0.5  # standard deviation of the Gaussian that smooths speech, about twice that of cue times
_WEIGHT_OF_ENDS = 0.5


@dataclass(frozen=True)
class Alignment:
    """True time = offset_s + (1 + drift) * cue time.

    linger_s: how long cues stay after their speech has ended.  confidence: share of resamples of the cues that agree, 0
    to 1.  rival: speech covered at the best of the other offsets, as a share of that at the chosen one.
    """

    offset_s: float
    drift: float
    linger_s: float
    confidence: float
    rival: float

    @property
    def trusted(self) -> bool:
        return self.confidence >= MIN_CONFIDENCE

    def time_s(self, cue_s: float) -> float:
        """Convert a time in the subtitle file into a time in the recording."""
        return self.offset_s + (1 + self.drift) * cue_s


class _Peak(NamedTuple):
    drift: float
    offset_s: float


class _Fit(NamedTuple):
    """A peak, and the cues shortened by how long they linger."""

    peak: _Peak
    cues_C2: Floats
    linger_s: float


def align(activity: Activity, cues_C2: Floats) -> Alignment:
    """Find the offset and drift of cues, given by their starts and ends in seconds.

    With fewer than five cues or no speech nothing can be found, and the confidence is 0.
    """
    if len(cues_C2) < MIN_CUES or activity.until_s(np.array([activity.duration_s]))[0] <= 0:
        return Alignment(0.0, 0.0, 0.0, 0.0, 1.0)
    best = _fitted(activity, cues_C2, drifts(activity.duration_s))
    best = best._replace(peak=_shrunk(activity, best))
    other = _fitted(activity, cues_C2, np.array(CLASSIC_RATIOS) - 1)
    if _gain(activity, cues_C2, best.peak, other.peak) >= _MIN_GAIN:
        best = other
    confidence, rival = _agreement(activity, best)
    return Alignment(best.peak.offset_s, best.peak.drift, best.linger_s, confidence, rival)


def drifts(duration_s: float) -> Floats:
    """Return the grid of drifts, -0.2 % to 0.2 %, so fine that neighbours hardly differ over the recording."""
    steps = max(1, int(np.ceil(MAX_DRIFT * duration_s / _MISFIT_S)))
    return np.arange(-steps, steps + 1) * (MAX_DRIFT / steps)


def _fitted(activity: Activity, cues_C2: Floats, drifts_D: Floats) -> _Fit:
    """Return the best offset, and the best drift near one of the given drifts."""
    fit = _without_linger(activity, cues_C2, _coarse(activity, cues_C2, drifts_D))
    half_s = max(1.0, float(cues_C2.max() - cues_C2.min()) / 2)
    drifts_D = fit.peak.drift + np.arange(-2, 2.01, 0.25) * _MISFIT_S / half_s
    return fit._replace(peak=_best_of(activity, fit.cues_C2, fit.peak, drifts_D))


def _coarse(activity: Activity, cues_C2: Floats, drifts_D: Floats) -> _Peak:
    """Return the drift and offset with the highest correlation of cues and speech, which are both 0 outside."""
    reach = round(MAX_OFFSET_S / _FRAME_S)
    last_s = activity.duration_s + MAX_OFFSET_S  # later cues fit nowhere; this also limits absurd times
    frames = int(np.ceil(last_s / _FRAME_S)) + 1
    size = 1 << (frames + 2 * reach - 1).bit_length()  # long enough that nothing wraps around
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
    """Return for how long cues have been shown before each time; overlapping cues count once."""
    cues_C2 = cues_C2[np.argsort(cues_C2[:, 0])]
    ends = np.maximum.accumulate(cues_C2[:, 1])
    starts = np.maximum(cues_C2[:, 0], np.concatenate([[0.0], ends[:-1]]))
    times = np.stack([np.minimum(starts, ends), ends], axis=1).ravel()
    shown = np.stack([np.zeros(len(ends)), np.maximum(ends - starts, 0)], axis=1).ravel().cumsum()
    return np.interp(edge_s, times, shown)


def _covered(activity: Activity, cues_C2: Floats, drift: float, offsets_L: Floats) -> Floats:
    """Return the seconds of speech that each cue covers at each offset, (C, L)."""
    times_2C1 = (cues_C2 * (1 + drift)).T[..., None]
    start_CL, end_CL = (activity.until_s(times_C1 + offsets_L) for times_C1 in times_2C1)
    return np.asarray(end_CL - start_CL)


def _without_linger(activity: Activity, cues_C2: Floats, peak: _Peak) -> _Fit:
    """Find how long cues linger after speech, near a peak, and shorten them by that."""
    best, found = -np.inf, _Fit(peak, cues_C2, 0.0)
    at_peak_C = _covered(activity, cues_C2, peak.drift, np.array([peak.offset_s]))[:, 0]
    usual = float(at_peak_C.sum() / (cues_C2[:, 1] - cues_C2[:, 0]).sum())
    offsets_L = peak.offset_s + np.arange(-1.0, 1.0, _FRAME_S)
    for linger_s in np.arange(0, MAX_LINGER_S + 0.01, _FRAME_S):
        ends_C = np.maximum(cues_C2[:, 1] - linger_s, np.minimum(cues_C2[:, 1], cues_C2[:, 0] + _SHORTEST_S))
        shorter_C2 = np.stack([cues_C2[:, 0], ends_C], axis=1)
        covered_L = _covered(activity, shorter_C2, peak.drift, offsets_L).sum(axis=0)
        score = float(covered_L.max()) - _LEAST_SHARE * usual * float((ends_C - cues_C2[:, 0]).sum())
        if score > best:
            best, found = score, _Fit(peak, shorter_C2, float(linger_s))
    return found


def _shrunk(activity: Activity, fit: _Fit) -> _Peak:
    """Shrink the drift that was found to its posterior mean, and return it with its best offset."""
    peak, cues_C2, _ = fit
    spread = _TIME_SPREAD_S / (np.sqrt(len(cues_C2)) * max(1.0, float(cues_C2.mean(axis=1).std())))
    drift = peak.drift / (1 + (spread / _DRIFT_SPREAD) ** 2)
    return _best_of(activity, cues_C2, peak, np.array([drift]))


def _best_of(activity: Activity, cues_C2: Floats, peak: _Peak, drifts_D: Floats) -> _Peak:
    """Return the drift and, on a fine grid near a peak, the offset with which cues best begin and end with speech.

    The drift is applied around the middle of the cues, so that the grid of offsets fits every drift.
    """
    middle_s = float(cues_C2.mean())
    at_s = peak.offset_s + peak.drift * middle_s
    span = np.arange(-1.0, 1.0 + _FINE_S / 2, _FINE_S)
    rise_T, time_T = _rise(activity)
    best, found = -np.inf, peak
    for drift in drifts_D:
        around_L = at_s - drift * middle_s + span
        start_CL, end_CL = (
            np.interp(times_C1 * (1 + drift) + around_L, time_T, rise_T, left=0, right=0)
            for times_C1 in cues_C2.T[..., None]
        )
        score_L = start_CL.sum(axis=0) - _WEIGHT_OF_ENDS * end_CL.sum(axis=0)
        at = int(score_L.argmax())
        if score_L[at] > best:
            best, found = float(score_L[at]), _Peak(float(drift), float(around_L[at]))
    return found


def _rise(activity: Activity) -> tuple[Floats, Floats]:
    """Return the slope of smoothed speech, above 0 where it sets in and below where it stops, and its times (T,)."""
    reach = round(4 * _EDGE_S / activity.frame_s)
    from_middle = np.arange(-reach, reach + 1) * activity.frame_s / _EDGE_S
    weights = np.exp(-0.5 * np.square(from_middle))
    padded_T = np.pad(activity.prob_T, reach)
    rise_T = np.convolve(padded_T, -from_middle * weights / weights.sum(), mode="valid")
    return rise_T, (np.arange(len(rise_T)) + 0.5) * activity.frame_s


def _gain(activity: Activity, cues_C2: Floats, one: _Peak, two: _Peak) -> float:
    """Return how many standard errors the mean share of speech per cue is higher at the second peak."""
    shares = [
        _covered(activity, cues_C2, peak.drift, np.array([peak.offset_s]))[:, 0] / (1 + peak.drift)
        for peak in (one, two)
    ]
    more_C = shares[1] - shares[0]
    return float(more_C.mean() / (more_C.std(ddof=1) / np.sqrt(len(more_C)) + 1e-9))


def _agreement(activity: Activity, fit: _Fit) -> tuple[float, float]:
    """Return the share of resamples that agree with the peak, and the relative coverage of the best other offset."""
    peak, cues_C2, _ = fit
    first, last = (round((edge_s - peak.offset_s) / _FRAME_S) for edge_s in (-MAX_OFFSET_S, MAX_OFFSET_S))
    offsets_L = peak.offset_s + np.arange(min(first, 0), max(last, 0) + 1) * _FRAME_S
    covered_CL = _covered(activity, cues_C2, peak.drift, offsets_L)
    same_L = np.abs(offsets_L - peak.offset_s) <= _SAME_S
    cues = len(cues_C2)
    weights_KC = np.random.default_rng(0).multinomial(cues, np.full(cues, 1 / cues), size=_RESAMPLES)
    best_K = (weights_KC @ covered_CL).argmax(axis=1)
    total_L = covered_CL.sum(axis=0)
    rival = float(total_L[~same_L].max(initial=0.0) / max(total_L[same_L].max(), 1e-9))
    return float(same_L[best_K].mean()), rival
