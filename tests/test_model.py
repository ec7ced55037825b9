"""Padding, batching and caching never change what the model computes."""

from __future__ import annotations

import random

import pytest
import torch

from asr.config import (
    AugmentConfig,
    DecoderConfig,
    EncoderConfig,
    LogMelConfig,
    ModelConfig,
    SubsamplingConfig,
    WhisperFeaturesConfig,
)
from asr.features import BLUR, Features, FrontEnd, SpecAugment, build_front_end
from asr.model.attention import explicit, fused
from asr.model.build import build_model
from asr.model.layers import Dropout
from asr.model.speech import SpeechModel

RATE = 8000
LENGTHS = [16000, 9000, 4321, 150]


def waveforms() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    audio_BN = torch.zeros(len(LENGTHS), max(LENGTHS))
    for row, n in zip(audio_BN, LENGTHS, strict=True):
        row[:n] = torch.randn(n, generator=generator) * 0.1
    return audio_BN, torch.tensor(LENGTHS)


def small(kind: str = "conv1d", factor: int = 4, norm: str = "pre", normalization: str = "utterance") -> SpeechModel:
    torch.manual_seed(0)
    encoder = EncoderConfig(
        layers=2, dim=32, heads=2, feed_forward=64, norm=norm, subsampling=SubsamplingConfig(kind=kind, factor=factor)
    )
    features = LogMelConfig(sample_rate_hz=RATE, n_mels=20, normalization=normalization)
    return build_model(features, ModelConfig(encoder=encoder, decoder={"layers": 2, "heads": 2}), 30).eval()


@pytest.mark.parametrize("kind", ["conv1d", "conv2d"])
@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_encoder_ignores_padding(kind: str, factor: int, norm: str) -> None:
    model = small(kind, factor, norm)
    audio_BN, len_B = waveforms()
    batch = model.encode(audio_BN, len_B)
    for extra in (0, 801, 30 * RATE):
        padded = model.encode(torch.nn.functional.pad(audio_BN, (0, extra)), len_B)
        assert padded.len_B.tolist() == batch.len_B.tolist()
        for b, n in enumerate(LENGTHS):
            alone = model.encode(audio_BN[b : b + 1, :n], len_B[b : b + 1])
            frames = int(alone.len_B[0])
            assert frames == alone.states_BTD.shape[1] == int(batch.len_B[b])
            torch.testing.assert_close(padded.states_BTD[b, :frames], alone.states_BTD[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("normalization", ["none", "utterance", "global"])
def test_features_are_zero_on_padding_and_do_not_depend_on_the_batch(normalization: str) -> None:
    front_end = build_front_end(LogMelConfig(sample_rate_hz=RATE, n_mels=20, normalization=normalization))
    audio_BN, len_B = waveforms()
    x_BTF, frames_B, _ = front_end(audio_BN, len_B)
    for b, n in enumerate(LENGTHS):
        alone = front_end(audio_BN[b : b + 1, :n], len_B[b : b + 1])
        frames = int(frames_B[b])
        torch.testing.assert_close(x_BTF[b, :frames], alone.x_BTF[0], atol=1e-5, rtol=0)
        assert not x_BTF[b, frames:].any()


def test_utterance_normalization_gives_mean_0_and_variance_1() -> None:
    front_end = build_front_end(LogMelConfig(sample_rate_hz=RATE, n_mels=20))
    audio_BN, len_B = waveforms()
    x_BTF, frames_B, _ = front_end(audio_BN, len_B)
    real_TF = x_BTF[1, : int(frames_B[1])]
    assert real_TF.mean(0).abs().max() < 1e-4
    assert (real_TF.std(0, correction=0) - 1).abs().max() < 0.05


def test_whisper_features_do_not_depend_on_the_batch() -> None:
    front_end: FrontEnd = build_front_end(WhisperFeaturesConfig(window_s=3.0))
    audio_BN, len_B = waveforms()
    together = front_end(audio_BN, len_B)
    assert together.len_B.tolist() == [300] * 4
    assert together.speech_len_B.tolist() == [100, 57, 28, 1]
    for b, n in enumerate(LENGTHS):
        alone = front_end(audio_BN[b : b + 1, :n], len_B[b : b + 1])
        frames = alone.x_BTF.shape[1]
        assert int(together.speech_len_B[b]) + BLUR < frames < 300
        torch.testing.assert_close(together.x_BTF[b, :frames], alone.x_BTF[0], atol=1e-5, rtol=0)
        # frames that are left out equal the last one that is kept
        rest_TF = together.x_BTF[b, frames:]
        torch.testing.assert_close(rest_TF, alone.x_BTF[0, -1:].expand_as(rest_TF), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_decoder_step_by_step_equals_teacher_forcing() -> None:
    model = small()
    memory = model.encode(*waveforms())
    tokens_BL = torch.randint(0, 30, (4, 9), generator=torch.Generator().manual_seed(2))
    logits_BLV, _ = model.decoder(tokens_BL, memory)
    expected = logits_BLV.log_softmax(-1)
    state = model.decoder.start(memory)
    state = model.decoder.reorder(state, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]))
    for i in range(5):
        got, state = model.decoder.step(tokens_BL[:, i].repeat_interleave(2)[:, None], state)
        torch.testing.assert_close(got, expected[:, i].repeat_interleave(2, 0), atol=1e-4, rtol=0)
    state = model.decoder.reorder(state, torch.tensor([3, 2, 7, 6]))  # only utterances 1 and 3 continue
    got, state = model.decoder.step(tokens_BL[[1, 1, 3, 3], 5:7], state)
    torch.testing.assert_close(got, expected[[1, 1, 3, 3], 6], atol=1e-4, rtol=0)
    got, _ = model.decoder.step(tokens_BL[:, :9], model.decoder.start(memory))
    torch.testing.assert_close(got, expected[:, 8], atol=1e-4, rtol=0)


def test_later_tokens_do_not_change_earlier_logits() -> None:
    model = small()
    memory = model.encode(*waveforms())
    tokens_BL = torch.randint(0, 30, (4, 6))
    longer_BL = torch.cat([tokens_BL, torch.randint(0, 30, (4, 5))], dim=1)
    a, _ = model.decoder(tokens_BL, memory)
    b, _ = model.decoder(longer_BL, memory)
    torch.testing.assert_close(a, b[:, :6], atol=1e-5, rtol=0)


def test_explicit_attention_equals_the_fused_kernel() -> None:
    model = small()
    memory = model.encode(*waveforms())
    tokens_BL = torch.randint(0, 30, (4, 6))
    a, none = model.decoder(tokens_BL, memory, fused)
    b, attentions = model.decoder(tokens_BL, memory, explicit)
    assert none == []
    assert [tuple(x.shape) for x in attentions] == [(4, 2, 6, memory.states_BTD.shape[1])] * 2
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    torch.testing.assert_close(attentions[0].sum(-1), torch.ones(4, 2, 6))
    assert not attentions[0][1, :, :, int(memory.len_B[1]) :].any()


def test_spec_augment_masks_real_frames_only_and_is_repeatable() -> None:
    front_end = build_front_end(LogMelConfig(sample_rate_hz=RATE, n_mels=20))
    features = front_end(*waveforms())
    augment = SpecAugment(AugmentConfig(time_masks=2, time_mask_frames=20, freq_masks=2, freq_mask_bins=5))

    def masked(*chosen: int, seed: int = 3) -> torch.Tensor:
        part = Features(*(x[list(chosen)] for x in features))
        return augment(part, [random.Random(10 * seed + i) for i in chosen]).x_BTF

    first, again, other = masked(0, 1, 2, 3), masked(0, 1, 2, 3), masked(0, 1, 2, 3, seed=4)
    torch.testing.assert_close(masked(2, 0), first[[2, 0]])  # the same in another batch
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    for b, frames in enumerate(features.len_B.tolist()):
        assert not first[b, frames:].any()
        whole_frames = (first[b, :frames] != features.x_BTF[b, :frames]).all(-1).sum()
        assert whole_frames <= 0.2 * frames


def test_dropout_drops_its_share_keeps_the_mean_and_is_off_in_evaluation() -> None:
    torch.manual_seed(0)
    dropout, x = Dropout(0.25), torch.ones(1003, 1001, requires_grad=True)
    y = dropout(x)
    assert (y == 0).float().mean().item() == pytest.approx(0.25, abs=2e-3)
    assert y.mean().item() == pytest.approx(1.0, abs=3e-3)
    assert torch.equal(y.unique(), torch.tensor([0.0, 1 / 0.75]))
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())  # the gradient has the same mask
    kept = (y.detach() > 0).float() - 0.75
    assert abs((kept[:, 1:] * kept[:, :-1]).mean().item()) < 2e-3  # neighbours share a draw but drop independently
    assert not torch.equal(y, dropout(x))
    assert dropout.eval()(x) is x


@pytest.mark.parametrize("p", [0.001, 0.999])
def test_dropout_with_extreme_rates_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    y = Dropout(p)(torch.ones(2000, 1000))
    assert 0 < (y == 0).float().mean().item() < 1
    assert y.mean().item() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("position", "scaled"), [("sinusoidal", True), ("learned", False), ("rotary", False)])
def test_decoder_embeddings_are_scaled_by_default_only_with_sinusoids(position: str, scaled: bool) -> None:
    assert DecoderConfig.model_validate({"position": position}).scaled == scaled
    assert not DecoderConfig.model_validate({"position": position, "scaled": False}).scaled
