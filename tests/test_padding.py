"""Silence that pads a window: computed once or recalled from memory, either way independent of the batch."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import noises
from pydantic import ValidationError

from asr.config import LogMelConfig, ModelConfig, ModelFolderConfig, WhisperFeaturesConfig
from asr.data.batch import pad_audio
from asr.features import BLUR, Features
from asr.model import padding
from asr.model.build import build_model
from asr.model.padding import LENGTHS_S, LEVELS, WIDEST, KeepSilence, RecallSilence, between, cells
from asr.model.speech import SpeechModel
from asr.model.subsampling import Conv1dSubsampling, Conv2dSubsampling

RATE = 8000
WINDOW = WhisperFeaturesConfig(sample_rate_hz=RATE, n_mels=20, window_s=4.0)


@pytest.mark.parametrize("kind", ["conv1d", "conv2d"])
@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("speech", [(1, 1), (40, 7), (41, 66), (150, 150), (118, 160), (121, 3)])
def test_padding_silence_is_computed_once_and_repeated(kind: str, factor: int, speech: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    subsampling = {"conv1d": Conv1dSubsampling, "conv2d": Conv2dSubsampling}[kind](6, 5, 8, factor, torch.nn.GELU())
    T, speech_len_B = 160, torch.tensor(speech)
    x_BTF = torch.randn(2, T, 6)
    for row, reach in zip(x_BTF, (speech_len_B + BLUR).tolist(), strict=True):
        row[reach:] = torch.randn(())  # each recording has its own silence
    computed: list[int] = []
    subsampling.register_forward_pre_hook(lambda _, args: computed.append(args[0].shape[1]))
    len_B = torch.tensor([T, T])
    whole_BTD = subsampling(x_BTF, len_B)
    recall = RecallSilence(3, T // factor, 0.1, stages=1, dim=8)
    for reach in (T, min(T, max(speech) + BLUR + 1)):  # the front end may omit repeating frames
        features = Features(x_BTF[:, :reach], len_B, speech_len_B)
        got = KeepSilence()(subsampling, features)
        assert computed[-1] <= min(T, max(speech) + BLUR + 6 * factor)
        assert got.log_weight_BT.tolist() == [[0.0] * (T // factor)] * 2
        torch.testing.assert_close(got.x_BTD, whole_BTD)
        begun = recall(subsampling, features)
        torch.testing.assert_close(begun.x_BTD, whole_BTD[:, : begun.x_BTD.shape[1]])
        assert torch.equal(begun.len_B, got.len_B)
        # Computed or recalled, each frame of the window counts once.
        torch.testing.assert_close(begun.log_weight_BT.exp().sum(1), torch.full((2,), float(T // factor)))


@given(st.integers(0, 3000))
def test_cells_tile_the_window_and_shrink_towards_its_end(n: int) -> None:
    sizes = cells(n)
    assert sum(sizes) == n
    assert all(1 <= size <= WIDEST for size in sizes)
    assert sizes[-2:] == [1] * min(2, n)
    assert sizes[1:] == sorted(sizes[1:], reverse=True)  # the first cell holds the remainder


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=5))
def test_between_is_linear_interpolation(values: list[float]) -> None:
    knots = torch.tensor([-3.0, -1.0, 0.5, 4.0])
    share_BK = between(torch.tensor(values), knots)
    torch.testing.assert_close(share_BK.sum(1), torch.ones(len(values)))
    assert int((share_BK > 0).sum(1).max()) <= 2
    torch.testing.assert_close(share_BK @ knots, torch.tensor(values).clamp(-3, 4), atol=1e-4, rtol=0)


def models(monkeypatch: pytest.MonkeyPatch, *, widest: int) -> tuple[SpeechModel, SpeechModel]:
    """Build a model that computes all silence and one with the same weights that recalls it, in cells of this width."""
    monkeypatch.setattr(padding, "WIDEST", widest)
    torch.manual_seed(2)
    both = []
    for kind in ("keep", "recall"):
        encoder = {"padding": kind, "dim": 16, "layers": 2, "heads": 2, "feed_forward": 32}
        encoder |= {"keep_s": 0.2} if kind == "recall" else {}
        config = ModelConfig.model_validate({"encoder": encoder, "decoder": {"layers": 1, "heads": 2}, "ctc": False})
        both.append(build_model(WINDOW, config, 12).eval())
    keep, recall = both
    recall.load_state_dict(keep.state_dict(), strict=False)
    return keep, recall


@torch.inference_mode()
def test_recalled_silence_replaces_computed_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    keep, recall = models(monkeypatch, widest=1)
    batch = pad_audio(noises(1.3))
    stages: list[torch.Tensor] = []
    for layer in keep.encoder.layers:
        layer.attention.register_forward_pre_hook(lambda _, args: stages.append(args[0]))
    whole = keep.encode(*batch)
    memory = recall.encoder.padding.silence_MXCD
    memory += torch.stack([*stages, whole.states_BTD[0]])  # for every level and length
    got, frames = recall.encode(*batch), int(whole.len_B)
    torch.testing.assert_close(got.states_BTD[:, :frames], whole.states_BTD[:, :frames], atol=1e-5, rtol=0)
    silence = got.states_BTD[0, got.log_weight_BT[0].isfinite()][frames:]
    torch.testing.assert_close(silence, whole.states_BTD[0, frames:], atol=1e-5, rtol=0)
    memory.zero_()
    assert (recall.encode(*batch).states_BTD[:, :frames] - whole.states_BTD[:, :frames]).abs().max() > 1e-3


@torch.inference_mode()
def test_recalled_silence_is_the_same_alone_and_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    _, recall = models(monkeypatch, widest=7)
    recall.encoder.padding.silence_MXCD.normal_()
    audio = [gain * x for gain, x in zip((1.0, 0.01, 0.3, 1.0), noises(2.0, 0.3, 1.1, 4.0), strict=True)]
    together = recall.encode(*pad_audio(audio))
    for b, x in enumerate(audio):
        alone = recall.encode(*pad_audio([x]))
        attended = together.log_weight_BT[b].isfinite()
        own = alone.log_weight_BT[0].isfinite()
        torch.testing.assert_close(together.states_BTD[b, attended], alone.states_BTD[0, own], atol=1e-5, rtol=0)
        torch.testing.assert_close(together.log_weight_BT[b, attended], alone.log_weight_BT[0, own])


def test_silence_memory_is_interpolated_by_level_and_length() -> None:
    recall = RecallSilence(0, 50, 1.0, stages=1, dim=1)
    shape = (len(LEVELS), len(LENGTHS_S), 1, 1, 1)
    grid = torch.arange(len(LEVELS))[:, None] * 100.0 + torch.arange(len(LENGTHS_S))
    recall.silence_MXCD.data[:] = grid.view(shape).flatten(0, 1)

    class Frames(torch.nn.Module):
        factor = 1

        def forward(self, x_BTF: torch.Tensor, len_B: torch.Tensor) -> torch.Tensor:
            return x_BTF[..., :1]

        def lengths(self, len_B: torch.Tensor) -> torch.Tensor:
            return len_B

    def recalled(level: float, seconds: int) -> float:
        x_BTF = torch.full((1, 50, 3), level)
        *_, silence_BXCD = recall(Frames(), Features(x_BTF, torch.tensor([50]), torch.tensor([seconds])))
        assert silence_BXCD is not None
        assert silence_BXCD.unique().numel() == 1
        return silence_BXCD[0, 0, 0, 0].item()

    assert recalled(-1.5, 4) == pytest.approx(2, abs=1e-4)
    assert recalled(-1.25, 4) == pytest.approx(52, abs=1e-4)
    assert recalled(-9.0, 40) == pytest.approx(3, abs=1e-4)
    part = math.log(2 / 1.6) / math.log(4 / 1.6)
    assert recalled(-0.5, 2) == pytest.approx(201 + part, abs=1e-3)


def test_silence_memory_receives_gradients() -> None:
    config = ModelConfig.model_validate({"encoder": {"padding": "recall", "layers": 1}, "decoder": {"layers": 1}})
    model = build_model(WINDOW, config, 12)
    logits, _ = model.decoder(torch.tensor([[1, 2]]), model.encode(*pad_audio(noises(1.0))))
    logits.square().sum().backward()
    gradient = model.encoder.padding.silence_MXCD.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_recall_padding_requires_features_with_a_window() -> None:
    model = ModelConfig.model_validate({"encoder": {"padding": "recall"}})
    with pytest.raises(ValidationError, match="features with a window"):
        ModelFolderConfig(features=LogMelConfig(), model=model)
