"""From waveforms to features: log-mel filter banks, normalisation and SpecAugment, on batches.

Shapes: B batch, N samples, T frames, F mel bins.  Padding never affects a real frame.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
import torchaudio.compliance.kaldi
import torchaudio.functional as TA
from torch import Tensor, nn

from asr.config import AugmentConfig, FeaturesConfig, KaldiFeaturesConfig, LogMelConfig, WhisperFeaturesConfig
from asr.lengths import within

BLUR = 2  # centred windows still overlap the recording this many frames after its end


class Features(NamedTuple):
    """The output of a front end.

    x_BTF: features, zero on padding.  len_B: the number of input frames.  speech_len_B: how many of them hold the
    recording; fewer than len_B if a window of fixed length is filled up with silence.  From BLUR frames after the
    recording on, all frames of that silence are equal, so x_BTF may end within them: its last frame then stands for all
    further ones that len_B counts.
    """

    x_BTF: Tensor
    len_B: Tensor
    speech_len_B: Tensor


def _mel_matrix(n_fft: int, n_mels: int, sample_rate_hz: int, *, slaney: bool) -> Tensor:
    scale, norm = ("slaney", "slaney") if slaney else ("htk", None)
    return TA.melscale_fbanks(n_fft // 2 + 1, 0.0, sample_rate_hz / 2, n_mels, sample_rate_hz, norm, scale)


class LogMel(nn.Module):
    """Log-mel energies of frames that lie entirely inside the recording, so that padding cannot leak in.

    The window is a Hann window; energies are floored at 1e-6 before the natural logarithm.  A recording shorter than
    one window gives one frame.
    """

    window_W: Tensor
    mel_XF: Tensor

    def __init__(self, sample_rate_hz: int, n_mels: int, window_ms: float, hop_ms: float) -> None:
        super().__init__()
        self.window = round(sample_rate_hz * window_ms / 1000)
        self.hop = round(sample_rate_hz * hop_ms / 1000)
        self.n_fft = 1 << (self.window - 1).bit_length()
        self.register_buffer("window_W", torch.hann_window(self.window), persistent=False)
        self.register_buffer("mel_XF", _mel_matrix(self.n_fft, n_mels, sample_rate_hz, slaney=False), persistent=False)

    def forward(self, audio_BN: Tensor, len_B: Tensor) -> Features:
        audio_BN = F.pad(audio_BN, (0, max(0, self.window - audio_BN.shape[1])))
        frames_BTW = audio_BN.unfold(1, self.window, self.hop) * self.window_W
        power_BTX = torch.fft.rfft(frames_BTW, self.n_fft).abs().square()
        x_BTF = (power_BTX @ self.mel_XF).clamp(min=1e-6).log()
        frames_B = (len_B - self.window).clamp(min=0) // self.hop + 1
        return Features(x_BTF, frames_B, frames_B)


class WhisperLogMel(nn.Module):
    """The log-mel of Whisper (Radford et al. 2022): a window of fixed length with silence after the recording.

    Frames are centred, the logarithm is log10, energies more than 8 decades below the window's maximum are clamped, and
    the result is (x + 4) / 4.  A recording longer than the window is cut off, so split it into windows first.
    """

    window_W: Tensor
    mel_XF: Tensor
    n_fft, hop = 400, 160

    def __init__(self, sample_rate_hz: int, n_mels: int, window_s: float) -> None:
        super().__init__()
        self.window_N = round(window_s * sample_rate_hz)
        self.register_buffer("window_W", torch.hann_window(self.n_fft), persistent=False)
        self.register_buffer("mel_XF", _mel_matrix(self.n_fft, n_mels, sample_rate_hz, slaney=True), persistent=False)

    def forward(self, audio_BN: Tensor, len_B: Tensor) -> Features:
        B = audio_BN.shape[0]
        T = self.window_N // self.hop
        audio_BN = audio_BN[:, : self.window_N]
        len_B = len_B.clamp(max=self.window_N)
        # Frames of pure silence are all equal, so only those that overlap a recording are computed.
        reach_T = min(T, math.ceil((audio_BN.shape[1] + self.n_fft) / self.hop) + 1)
        audio_BN = F.pad(audio_BN, (0, reach_T * self.hop - audio_BN.shape[1]))
        spectrum_BXT = torch.stft(audio_BN, self.n_fft, self.hop, window=self.window_W, return_complex=True)
        power_BTX = spectrum_BXT[..., :reach_T].abs().square().transpose(1, 2)
        x_BTF = (power_BTX @ self.mel_XF).clamp(min=1e-10).log10()
        x_BTF = torch.maximum(x_BTF, x_BTF.amax(dim=(1, 2), keepdim=True) - 8.0)
        return Features((x_BTF + 4.0) / 4.0, len_B.new_full((B,), T), (-(-len_B // self.hop)).clamp(max=T))


class KaldiFilterBank(nn.Module):
    """Kaldi's log-mel filter bank with the options of fairseq's Speech2Text (Wang et al. 2020).

    Samples are scaled to the range of 16 bits.  Frames lie entirely inside the recording; from each its mean is
    subtracted, then it is pre-emphasised by 0.97 within itself and weighted with Povey's window.  Filters are triangles
    on the mel scale from 20 Hz to half the sample rate; energies are floored at float32's epsilon before the natural
    logarithm.  There is no dither, unlike in Kaldi.  A recording shorter than one window gives one frame.
    """

    window_W: Tensor
    mel_XF: Tensor

    def __init__(self, sample_rate_hz: int, n_mels: int) -> None:
        super().__init__()
        self.window, self.hop = sample_rate_hz * 25 // 1000, sample_rate_hz * 10 // 1000
        self.n_fft = 1 << (self.window - 1).bit_length()
        window_W = torch.hann_window(self.window, periodic=False).pow(0.85)
        mel_FX, _ = torchaudio.compliance.kaldi.get_mel_banks(
            n_mels, self.n_fft, sample_rate_hz, low_freq=20.0, high_freq=0.0, vtln_low=100.0, vtln_high=-500.0,
            vtln_warp_factor=1.0,
        )  # fmt: skip
        self.register_buffer("window_W", window_W, persistent=False)
        self.register_buffer("mel_XF", F.pad(mel_FX, (0, 1)).T.contiguous(), persistent=False)

    def forward(self, audio_BN: Tensor, len_B: Tensor) -> Features:
        audio_BN = F.pad(audio_BN, (0, max(0, self.window - audio_BN.shape[1]))) * 2.0**15
        frames_BTW = audio_BN.unfold(1, self.window, self.hop)
        frames_BTW = frames_BTW - frames_BTW.mean(-1, keepdim=True)
        before_BTW = torch.cat([frames_BTW[..., :1], frames_BTW[..., :-1]], dim=-1)
        spectrum_BTX = torch.fft.rfft((frames_BTW - 0.97 * before_BTW) * self.window_W, self.n_fft)
        energy_BTF = spectrum_BTX.abs().square() @ self.mel_XF
        frames_B = (len_B - self.window).clamp(min=0) // self.hop + 1
        return Features(energy_BTF.clamp(min=torch.finfo(torch.float32).eps).log(), frames_B, frames_B)


class NoNormalization(nn.Module):
    """Leaves features as they are, except that padding is set to zero."""

    def forward(self, features: Features) -> Features:
        real_BT1 = within(features.len_B, features.x_BTF.shape[1])[..., None]
        return features._replace(x_BTF=features.x_BTF.masked_fill(~real_BT1, 0.0))


class UtteranceNormalization(nn.Module):
    """Zero mean and unit variance of every mel bin over the real frames of the utterance."""

    def forward(self, features: Features) -> Features:
        x_BTF, len_B, _ = features
        x_BTF = _centred(x_BTF, len_B)
        std_B1F = (x_BTF.square().sum(1, keepdim=True) / len_B[:, None, None]).sqrt()
        return features._replace(x_BTF=x_BTF / (std_B1F + 1e-2))


class ZeroMean(nn.Module):
    """Zero mean of every mel bin over the real frames of the utterance."""

    def forward(self, features: Features) -> Features:
        x_BTF, len_B, _ = features
        return features._replace(x_BTF=_centred(x_BTF, len_B))


class UnitVariance(nn.Module):
    """Unit variance of every mel bin over the real frames of the utterance; constant bins are left as they are."""

    def forward(self, features: Features) -> Features:
        x_BTF, len_B, _ = features
        variance_B1F = _centred(x_BTF, len_B).square().sum(1, keepdim=True) / len_B[:, None, None]
        # A variance below fairseq's own floor is nothing but rounding.
        std_B1F = torch.where(variance_B1F > 1e-10, variance_B1F.sqrt(), 1.0)
        real_BT1 = within(len_B, x_BTF.shape[1])[..., None]
        return features._replace(x_BTF=(x_BTF / std_B1F).masked_fill(~real_BT1, 0.0))


def _centred(x_BTF: Tensor, len_B: Tensor) -> Tensor:
    real_BT1 = within(len_B, x_BTF.shape[1])[..., None]
    mean_B1F = x_BTF.masked_fill(~real_BT1, 0.0).sum(1, keepdim=True) / len_B[:, None, None]
    return (x_BTF - mean_B1F).masked_fill(~real_BT1, 0.0)


class GlobalNormalization(nn.Module):
    """Zero mean and unit variance of every mel bin over the training set; both vectors are part of the model."""

    mean_F: Tensor
    std_F: Tensor

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        self.register_buffer("mean_F", torch.zeros(n_mels))
        self.register_buffer("std_F", torch.ones(n_mels))

    def forward(self, features: Features) -> Features:
        x_BTF = (features.x_BTF - self.mean_F) / self.std_F
        real_BT1 = within(features.len_B, x_BTF.shape[1])[..., None]
        return features._replace(x_BTF=x_BTF.masked_fill(~real_BT1, 0.0))


class FrontEnd(nn.Module):
    """Maps waveforms (B, N) at `sample_rate_hz` with lengths (B,) to normalised Features, always in float32.

    edge: how many frames fewer than hops a recording can have at most, since frames lie entirely inside it.
    """

    def __init__(
        self, spectrum: nn.Module, normalization: nn.Module, sample_rate_hz: int, hop_s: float, edge: int
    ) -> None:
        super().__init__()
        self.spectrum = spectrum
        self.normalization = normalization
        self.sample_rate_hz = sample_rate_hz
        self.hop_s = hop_s
        self.edge = edge

    @torch.no_grad()
    def forward(self, audio_BN: Tensor, len_B: Tensor) -> Features:
        with torch.autocast(audio_BN.device.type, enabled=False):
            return self.normalization(self.spectrum(audio_BN.float(), len_B))


def build_front_end(config: FeaturesConfig) -> FrontEnd:
    """Build the front end that the configuration names."""
    rate = config.sample_rate_hz
    if isinstance(config, WhisperFeaturesConfig):
        whisper = WhisperLogMel(rate, config.n_mels, config.window_s)
        return FrontEnd(whisper, nn.Identity(), rate, whisper.hop / rate, 0)
    if isinstance(config, KaldiFeaturesConfig):
        kaldi = KaldiFilterBank(rate, config.n_mels)
        wanted = {ZeroMean: config.normalize_means, UnitVariance: config.normalize_vars}
        parts = [NoNormalization(), *(part() for part, is_wanted in wanted.items() if is_wanted)]
        return FrontEnd(kaldi, nn.Sequential(*parts), rate, kaldi.hop / rate, _edge(kaldi))
    assert isinstance(config, LogMelConfig)
    log_mel = LogMel(rate, config.n_mels, config.window_ms, config.hop_ms)
    normalizations: dict[str, Callable[[], nn.Module]] = {
        "none": NoNormalization,
        "utterance": UtteranceNormalization,
        "global": lambda: GlobalNormalization(config.n_mels),
    }
    normalization = normalizations[config.normalization]()
    return FrontEnd(log_mel, normalization, rate, log_mel.hop / rate, _edge(log_mel))


def _edge(spectrum: LogMel | KaldiFilterBank) -> int:
    return -(-spectrum.window // spectrum.hop) - 1


class SpecAugment:
    """Time and frequency masks (Park et al. 2019), with time masks that adapt to the length (Park et al. 2020).

    Each utterance is masked with its own mean over the frames that hold speech; together its time masks cover at most
    the configured share of these frames.  The masks of an utterance are drawn from its own entry of `draws`.
    """

    def __init__(self, config: AugmentConfig) -> None:
        self.config = config

    def __call__(self, features: Features, draws: Sequence[random.Random]) -> Features:
        config, (x_BTF, _, speech_len_B) = self.config, features
        B, T, n_mels = x_BTF.shape
        speech_BT = within(speech_len_B, T)
        widest_B = torch.full_like(speech_len_B, config.time_mask_frames)
        if config.time_masks:
            widest_B = torch.minimum(widest_B, (speech_len_B * config.time_mask_share / config.time_masks).long())
        masked_BT = self._spans(config.time_masks, speech_len_B, widest_B, T, draws) & speech_BT
        bins_B, width_B = speech_len_B.new_full((B,), n_mels), speech_len_B.new_full((B,), config.freq_mask_bins)
        masked_BF = self._spans(config.freq_masks, bins_B, width_B, n_mels, draws)
        masked_BTF = masked_BT[..., None] | (masked_BF[:, None] & speech_BT[..., None])
        speech_sum_B11 = x_BTF.masked_fill(~speech_BT[..., None], 0.0).sum((1, 2), keepdim=True)
        mean_B11 = speech_sum_B11 / (speech_len_B[:, None, None] * n_mels)
        return features._replace(x_BTF=torch.where(masked_BTF, mean_B11, x_BTF))

    @staticmethod
    def _spans(count: int, size_B: Tensor, widest_B: Tensor, size: int, draws: Sequence[random.Random]) -> Tensor:
        """Mark the union of `count` random spans per row, each 0 to `widest_B` long: (B, size), True = masked."""
        draw_BM2 = torch.tensor([[(draw.random(), draw.random()) for _ in range(count)] for draw in draws])
        draw_BM2 = draw_BM2.view(len(draws), count, 2).to(size_B.device)
        width_BM = (draw_BM2[..., 0] * (widest_B[:, None] + 1)).long()
        start_BM = (draw_BM2[..., 1] * (size_B[:, None] - width_BM + 1).clamp(min=1)).long()
        at = torch.arange(size, device=size_B.device)
        return ((at >= start_BM[..., None]) & (at < (start_BM + width_BM)[..., None])).any(1)
