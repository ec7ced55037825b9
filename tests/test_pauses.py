"""Pauses in audio, and word boundaries moved to them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from asr.pauses import find_pauses, keep_to_pauses

RATE = 8000


def sound(*parts: tuple[float, float], noise: float = 0.0) -> Tensor:
    """Return white noise in parts of (seconds, loudness), with background noise over all of it."""
    draw = torch.Generator().manual_seed(1)
    lengths = [round(s * RATE) for s, _ in parts]
    loud = torch.cat([torch.full((n,), level) for n, (_, level) in zip(lengths, parts, strict=True)])
    return torch.randn(len(loud), generator=draw) * loud + torch.randn(len(loud), generator=draw) * noise


@pytest.mark.parametrize("noise", [0.0, 1e-4, 0.01, 0.1])
@pytest.mark.parametrize("gain", [1.0, 0.01])
def test_pauses_are_found_at_any_loudness_and_in_noise(noise: float, gain: float) -> None:
    audio_N = gain * sound((0.4, 0), (1, 0.5), (0.3, 0), (1, 0.3), (0.08, 0), (0.5, 0.5), (0.1, 0), noise=noise)
    pauses = find_pauses(audio_N, RATE)
    expected = [(0.0, 0.4), (1.4, 1.7), (3.28, 3.38)]
    assert len(pauses) == len(expected)
    for found, (start, end) in zip(pauses, expected, strict=True):
        assert found == (pytest.approx(start, abs=0.03), pytest.approx(end, abs=0.03))
    assert pauses[-1][1] == len(audio_N) / RATE


def test_room_noise_next_to_digital_silence_is_one_pause() -> None:
    assert find_pauses(sound((1, 0.5), (0.5, 5e-4), (1, 0), (1, 0.5)), RATE) == [pytest.approx((1.0, 2.5), abs=0.03)]


@pytest.mark.parametrize("parts", [[(2.0, 0.3)], [(2.0, 0.0)], [(0.01, 0.1)], []])
def test_uniform_audio_has_no_pause(parts: list[tuple[float, float]]) -> None:
    pauses = find_pauses(sound(*parts) if parts else torch.zeros(0), RATE)
    assert all(b - a < 0.15 for a, b in pauses)  # at most a frame at an edge


def test_word_boundaries_move_to_the_pause_between_words() -> None:
    words = [(0.0, 0.9), (1.25, 2.0), (2.0, 2.4)]
    kept = keep_to_pauses(words, [(0.0, 0.3), (1.0, 1.5), (2.7, 3.0)], 3.0)
    assert kept == [pytest.approx(w) for w in ((0.25, 1.05), (1.45, 2.0), (2.0, 2.75))]


def test_late_or_early_boundaries_are_moved_to_the_pause() -> None:
    late = keep_to_pauses([(0.0, 1.8), (1.8, 3.0)], [(1.0, 1.5)], 3.0)
    early = keep_to_pauses([(0.0, 0.6), (0.6, 3.0)], [(1.0, 1.5)], 3.0)
    assert late == early == [pytest.approx(w) for w in ((0.0, 1.05), (1.45, 3.0))]


def test_pause_far_from_all_boundaries_changes_nothing() -> None:
    words = [(0.0, 3.0), (3.0, 4.0)]
    assert keep_to_pauses(words, [(1.2, 1.5)], 4.0) == words


def test_noise_between_two_pauses_belongs_to_no_word() -> None:
    kept = keep_to_pauses([(0.0, 1.1), (3.1, 4.0)], [(1.0, 1.2), (3.0, 3.2)], 4.0)
    assert kept == [pytest.approx(w) for w in ((0.0, 1.05), (3.15, 4.0))]
    # A pause before the noise does not show where the next word begins.
    kept = keep_to_pauses([(0.0, 1.1), (3.1, 4.0)], [(1.0, 1.2)], 4.0)
    assert kept == [pytest.approx(w) for w in ((0.0, 1.05), (3.1, 4.0))]


def test_noise_after_a_word_does_not_lengthen_it() -> None:
    kept = keep_to_pauses([(0.0, 1.0), (3.1, 4.0)], [(2.9, 3.2)], 4.0)
    assert kept == [pytest.approx(w) for w in ((0.0, 1.0), (3.15, 4.0))]


times = st.lists(st.floats(0, 10), min_size=0, max_size=24).map(sorted)


@given(times, times)
def test_words_stay_in_order(of_words: list[float], of_pauses: list[float]) -> None:
    words = list(zip(of_words[::2], of_words[1::2], strict=False))
    pauses = list(zip(of_pauses[::2], of_pauses[1::2], strict=False))
    kept = keep_to_pauses(words, pauses, 10.0)
    assert len(kept) == len(words)
    assert all(0 <= a <= b <= 10 for a, b in kept)
    assert all(first[1] <= second[0] for first, second in pairwise(kept))
