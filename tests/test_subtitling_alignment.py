"""Offset and drift of subtitles, found by matching cues to speech."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from subtitled import activity_of, conversation

from asr.subtitling.activity import Activity
from asr.subtitling.alignment import CLASSIC_RATIOS, Alignment, align, drifts


def recording(turns: int, seed: int = 0) -> tuple[Activity, NDArray[np.float64]]:
    speech = conversation(turns, seed, lead_s=40.0)
    return activity_of(speech, speech[-1][1] + 10), np.array(speech)


def wrong(speech_C2: NDArray[np.float64], offset_s: float, drift: float) -> NDArray[np.float64]:
    """Return cue times that `offset_s` and `drift` map to the true ones."""
    return (speech_C2 - offset_s) / (1 + drift)


def error_s(found: Alignment, speech_C2: NDArray[np.float64], offset_s: float, drift: float) -> float:
    """Return the larger of the errors at both ends of the speech."""
    edges = np.array([speech_C2[0, 0], speech_C2[-1, 1]])
    return max(abs(found.time_s(t) - edge) for t, edge in zip(wrong(edges, offset_s, drift), edges, strict=True))


@settings(deadline=None, max_examples=25)
@given(offset_s=st.floats(-55, 39), seed=st.integers(0, 50))
def test_offset_is_found(offset_s: float, seed: int) -> None:
    activity, speech_C2 = recording(30, seed)
    found = align(activity, wrong(speech_C2, offset_s, 0.0))
    assert found.trusted
    assert error_s(found, speech_C2, offset_s, 0.0) < 0.1


@pytest.mark.parametrize("drift", [0.001, -0.002, *(ratio - 1 for ratio in CLASSIC_RATIOS)])
def test_drift_is_found(drift: float) -> None:
    activity, speech_C2 = recording(300)
    found = align(activity, wrong(speech_C2, -7.0, drift))
    assert found.trusted
    assert found.drift == pytest.approx(drift, abs=1e-4)
    assert error_s(found, speech_C2, -7.0, drift) < 0.1


@pytest.mark.parametrize("seed", range(4))
def test_alignment_tolerates_jitter_missing_and_foreign_cues(seed: int) -> None:
    activity, speech_C2 = recording(100, seed)
    rng = np.random.default_rng(seed)
    cues_C2 = speech_C2[rng.random(100) > 0.05]
    cues_C2 = cues_C2 + rng.normal(0, 0.3, cues_C2.shape)
    aliens = rng.uniform(0, activity.duration_s, 5)
    cues_C2 = np.concatenate([cues_C2, np.stack([aliens, aliens + 2], axis=1)])
    found = align(activity, wrong(cues_C2, 21.0, 0.001))
    assert found.trusted
    assert error_s(found, speech_C2, 21.0, 0.001) < 0.5


@pytest.mark.parametrize("seed", range(4))
def test_jitter_in_a_short_recording_is_not_taken_for_drift(seed: int) -> None:
    activity, speech_C2 = recording(20, seed)
    noise_C2 = np.random.default_rng(seed).normal(0, 0.3, speech_C2.shape)
    found = align(activity, wrong(speech_C2 + noise_C2, 5.0, 0.0))
    assert abs(found.drift) < 0.0006
    assert error_s(found, speech_C2, 5.0, 0.0) < 0.2


@pytest.mark.parametrize("seed", range(3))
def test_lingering_cues_are_not_shifted_ahead_of_speech(seed: int) -> None:
    activity, speech_C2 = recording(60, seed)
    linger_C = np.random.default_rng(seed).uniform(0, 1.5, len(speech_C2))
    room_C = np.append(speech_C2[1:, 0], np.inf) - 0.1
    cues_C2 = np.stack([speech_C2[:, 0], np.minimum(speech_C2[:, 1] + linger_C, room_C)], axis=1)
    found = align(activity, wrong(cues_C2, 5.0, 0.0))
    assert error_s(found, speech_C2, 5.0, 0.0) < 0.15
    assert 0.3 < found.linger_s < 1.2


@pytest.mark.parametrize("seed", range(5))
def test_subtitles_of_another_recording_are_not_trusted(seed: int) -> None:
    activity, _ = recording(60, seed)
    _, other_C2 = recording(60, seed + 100)
    assert not align(activity, other_C2).trusted


def test_confidence_is_zero_for_silence_or_too_few_cues() -> None:
    activity, speech_C2 = recording(30)
    assert align(activity, speech_C2[:4]).confidence == 0
    assert align(activity_of([], 100), speech_C2).confidence == 0


def test_cue_at_an_absurd_time_does_no_harm() -> None:
    activity, speech_C2 = recording(30)
    cues_C2 = np.concatenate([wrong(speech_C2, 5.0, 0.0), [(3e7, 3e7 + 2)]])
    found = align(activity, cues_C2)
    assert found.trusted
    assert error_s(found, speech_C2, 5.0, 0.0) < 0.1


def test_drift_grid_includes_zero_and_is_dense_for_long_recordings() -> None:
    for duration_s in (10, 600, 7200):
        grid_D = np.sort(drifts(duration_s))
        near_D = grid_D[np.abs(grid_D) <= 0.002 + 1e-9]
        assert np.abs(near_D).min() == 0
        assert np.diff(near_D).max() * duration_s <= 0.3 + 1e-6 or len(near_D) == 3
