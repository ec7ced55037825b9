"""The front end against librosa; resampling keeps a tone, its length and the memory within bounds."""

from __future__ import annotations

import math

import librosa
import numpy as np
import pytest
import torch
import torchaudio.functional

from asr.features import LogMel, resample


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


@pytest.mark.parametrize(("rate", "n_fft"), [(8000, 256), (16000, 512)])
def test_log_mel_is_that_of_librosa(rate: int, n_fft: int) -> None:
    audio_N = np.random.default_rng(0).normal(0, 0.1, rate).astype(np.float32)
    got = LogMel(rate, 40, 25.0, 10.0)(torch.from_numpy(audio_N)[None], torch.tensor([rate]))
    window, hop = rate // 40, rate // 100
    around = (n_fft - window) // 2  # librosa puts the window into the middle of the transform's frame
    power_FT = librosa.feature.melspectrogram(
        y=np.pad(audio_N, around),
        sr=rate,
        n_fft=n_fft,
        win_length=window,
        hop_length=hop,
        center=False,
        htk=True,
        norm=None,
        n_mels=40,
    )
    expected_TF = torch.from_numpy(np.log(np.maximum(power_FT, 1e-6)).T)
    assert got.len_B.tolist() == [len(expected_TF)] == [(rate - window) // hop + 1]
    torch.testing.assert_close(got.x_BTF[0], expected_TF, atol=2e-4, rtol=0)
