"""Resampling keeps a tone, its length and the memory within bounds, whatever the rates."""

from __future__ import annotations

import math

import pytest
import torch
import torchaudio.functional

from asr.features import resample


@pytest.mark.parametrize(
    ("from_hz", "to_hz"), [(8000, 16000), (44100, 16000), (7200, 8000), (8800, 8000), (7993, 8000), (44099, 16000)]
)
def test_a_tone_stays_the_tone(from_hz: int, to_hz: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torchaudio_resample = torchaudio.functional.resample

    def small_kernels_only(audio_N: torch.Tensor, from_hz: int, to_hz: int) -> torch.Tensor:
        assert from_hz // math.gcd(from_hz, to_hz) < 10_000, "the kernel would take gigabytes"
        return torchaudio_resample(audio_N, from_hz, to_hz)

    monkeypatch.setattr(torchaudio.functional, "resample", small_kernels_only)
    n = 2 * from_hz + 17
    audio_N = torch.sin(torch.arange(n) * 2 * math.pi * 440 / from_hz)
    got_N = resample(audio_N, from_hz, to_hz)
    assert len(got_N) == math.ceil(n * to_hz / from_hz)
    assert got_N.dtype == torch.float32
    expected_N = torch.sin(torch.arange(len(got_N)) * 2 * math.pi * 440 / to_hz)
    middle = slice(500, -500)  # the filter rings at both ends
    torch.testing.assert_close(got_N[middle], expected_N[middle], atol=3e-3, rtol=0)
