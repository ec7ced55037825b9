"""The memory of silence, filled from a model's states for a synthetic voice, and that voice."""

from __future__ import annotations

import pytest
import torch
from models import noises, small_model

from asr.checkpoint import ModelFolder
from asr.config import WhisperFeaturesConfig
from asr.data.batch import pad_audio
from asr.pretrained import with_padding
from asr.pretrained.silence import MEMORY, VOICES, resettled
from asr.pretrained.voice import SENTENCES, say

WINDOW = WhisperFeaturesConfig(sample_rate_hz=8000, n_mels=20, window_s=20.0)


def whole() -> ModelFolder:
    return small_model(features=WINDOW, encoder={"padding": "keep"})


@torch.inference_mode()
def test_remembered_silence_approximates_computed_silence() -> None:
    exact = whole()
    recall, none = with_padding(exact, "recall"), with_padding(exact, "mask")
    voices = [say(SENTENCES[1], 1.3, 8000, VOICES[0]), say(SENTENCES[2], 3.0, 8000, VOICES[1])]
    batch = pad_audio([*voices, noises(1.0)[0]])
    states = [parts.model.encode(*batch) for parts in (exact, recall, none)]
    for b, frames in enumerate(states[0].len_B.tolist()):
        expected, remembered, cut = (memory.states_BTD[b, :frames] for memory in states)
        assert (remembered - expected).norm() < 0.1 * expected.norm() < (cut - expected).norm()


def test_adding_and_removing_the_memory_keeps_the_weights() -> None:
    exact = whole()
    recall = with_padding(exact, "recall")
    weights, before = recall.model.state_dict(), exact.model.state_dict()
    memory = weights.pop(MEMORY).clone()
    assert weights.keys() == before.keys()
    assert all(torch.equal(weights[name], before[name]) for name in weights)
    assert memory.isfinite().all()
    again = with_padding(exact, "recall").model.state_dict()[MEMORY]
    assert torch.equal(memory, again), "filling the memory must be deterministic"
    recall.model.encoder.padding.silence_MXCD.data += 1  # as if it had been trained
    assert torch.equal(with_padding(recall, "recall").model.state_dict()[MEMORY], memory + 1)
    assert MEMORY not in with_padding(recall, "keep").model.state_dict()


def test_memory_is_refilled_only_if_more_frames_must_be_recalled() -> None:
    recall = with_padding(whole(), "recall")
    kept: dict[float, torch.Tensor] = {}
    for keep_s in (0.3, 0.5, 0.7):
        encoder = recall.config.model.encoder.model_copy(update={"keep_s": keep_s})
        model = recall.config.model.model_copy(update={"encoder": encoder})
        changed = resettled(recall, recall.config.model_copy(update={"model": model}))
        kept[keep_s] = changed.model.state_dict()[MEMORY]
    own = recall.model.state_dict()[MEMORY]
    assert torch.equal(kept[0.5], own)
    assert torch.equal(kept[0.7], own)
    assert not torch.equal(kept[0.3], own)


@pytest.mark.parametrize("voice", VOICES)
def test_voice_has_the_given_pitch_length_and_loudness(voice: tuple[float, float]) -> None:
    wave_N = say("aaaa", 1.0, 16_000, voice)
    assert wave_N.shape == (16_000,)
    assert float(wave_N.square().mean().sqrt()) == pytest.approx(0.1, abs=1e-4)
    assert wave_N[0] == wave_N[-1] == 0
    middle = wave_N[6000:10_096] * torch.hann_window(4096)
    strength = torch.fft.rfft(middle, 65_536).abs()
    lowest = strength[: int(1.6 * voice[0] / 16_000 * 65_536)].argmax() / 65_536 * 16_000
    assert 0.8 * voice[0] < lowest < 1.25 * voice[0]


def test_vowels_differ_in_their_formants() -> None:
    def centre(sound: str) -> float:
        power = torch.fft.rfft(say(sound * 4, 1.0, 16_000, VOICES[0])).abs().square()
        return float((power * torch.linspace(0, 8000, len(power))).sum() / power.sum())

    assert centre("i") < centre("a")  # most of the power is in a low first formant
    high = [torch.fft.rfft(say(sound * 4, 1.0, 16_000, VOICES[0])).abs().square()[2000:3000].sum() for sound in "io"]
    assert high[0] > 3 * high[1]  # 2 to 3 kHz: the second formant of "i"
