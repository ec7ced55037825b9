"""The front ends against librosa and torchaudio."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch
import torchaudio.compliance.kaldi

from asr.config import KaldiFeaturesConfig, LogMelConfig
from asr.features import Features, KaldiFilterBank, LogMel, UnitVariance, ZeroMean, build_front_end


@pytest.mark.parametrize(("rate", "n_fft"), [(8000, 256), (16000, 512)])
def test_log_mel_equals_librosa(rate: int, n_fft: int) -> None:
    audio_N = np.random.default_rng(0).normal(0, 0.1, rate).astype(np.float32)
    got = LogMel(rate, 40, 25.0, 10.0)(torch.from_numpy(audio_N)[None], torch.tensor([rate]))
    window, hop = rate // 40, rate // 100
    around = (n_fft - window) // 2  # librosa centres the window in the FFT frame
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


@pytest.mark.parametrize(("rate", "n_mels"), [(16_000, 80), (8000, 40)])
def test_kaldi_filter_bank_equals_torchaudio(rate: int, n_mels: int) -> None:
    draw = torch.Generator().manual_seed(0)
    audio_N = 0.1 * torch.randn(rate, generator=draw) + 0.02  # a DC offset, which is removed from every frame
    short_N = audio_N[: rate // 3]
    audio_BN = torch.stack([audio_N, torch.nn.functional.pad(short_N, (0, rate - len(short_N)))])
    got = KaldiFilterBank(rate, n_mels)(audio_BN, torch.tensor([rate, len(short_N)]))
    for x_TF, length, waveform_N in zip(got.x_BTF, got.len_B.tolist(), (audio_N, short_N), strict=True):
        expected_TF = torchaudio.compliance.kaldi.fbank(
            waveform_N[None] * 2**15, num_mel_bins=n_mels, sample_frequency=rate, dither=0.0
        )
        assert length == len(expected_TF)
        torch.testing.assert_close(x_TF[:length], expected_TF, atol=1e-4, rtol=0)


def test_recording_shorter_than_a_window_gives_one_frame() -> None:
    front_end = build_front_end(KaldiFeaturesConfig())
    features = front_end(torch.full((2, 399), 0.1), torch.tensor([399, 1]))
    assert features.x_BTF.shape == (2, 1, 80)
    assert features.len_B.tolist() == [1, 1]
    assert features.x_BTF.isfinite().all()


def test_mean_and_variance_are_computed_over_real_frames() -> None:
    draw = torch.Generator().manual_seed(0)
    x_BTF = 5 + 3 * torch.randn(2, 50, 4, generator=draw)
    x_BTF[:, :, 3] = -15.9  # a bin without energy
    len_B = torch.tensor([50, 20])
    for i, n in enumerate(len_B.tolist()):
        real_TF = x_BTF[i, :n]
        mean_F, std_F = real_TF.mean(0), real_TF.std(0, correction=0)
        std_F[3] = 1.0
        zero_mean = ZeroMean()(Features(x_BTF, len_B, len_B)).x_BTF
        unit_variance = UnitVariance()(Features(x_BTF, len_B, len_B)).x_BTF
        torch.testing.assert_close(zero_mean[i, :n], real_TF - mean_F, atol=1e-5, rtol=0)
        torch.testing.assert_close(unit_variance[i, :n], real_TF / std_F, atol=1e-5, rtol=0)
        assert not zero_mean[i, n:].any()
        assert not unit_variance[i, n:].any()


@pytest.mark.parametrize("means", [False, True])
@pytest.mark.parametrize("variances", [False, True])
def test_kaldi_features_are_normalised_as_configured(means: bool, variances: bool) -> None:
    front_end = build_front_end(KaldiFeaturesConfig(normalize_means=means, normalize_vars=variances))
    audio_N = 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    x_TF = front_end(audio_N, torch.tensor([16_000])).x_BTF[0]
    assert (x_TF.mean(0).abs().max() < 1e-4) == means
    assert ((x_TF.std(0, correction=0) - 1).abs().max() < 1e-4) == variances


@pytest.mark.parametrize("features", [{}, {"hop_ms": 5.0}, {"window_ms": 50.0}, {"window_ms": 20.0}, None])
def test_edge_is_the_largest_difference_of_hops_and_frames(features: dict[str, float] | None) -> None:
    config = KaldiFeaturesConfig() if features is None else LogMelConfig(**features)
    front_end = build_front_end(config)
    hop = round(front_end.hop_s * config.sample_rate_hz)
    samples_B = torch.arange(config.sample_rate_hz, config.sample_rate_hz + 2 * hop, 7)
    frames_B = front_end(torch.zeros(len(samples_B), int(samples_B[-1])), samples_B).len_B
    less_B = samples_B // hop - frames_B
    assert int(less_B.max()) == front_end.edge
