"""Word alignment against plain reference algorithms; times do not depend on padding or batching."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from models import RATE, noises, small_model
from torch import Tensor

import asr.model.decoder
import asr.model.reading
from asr.align import (
    HeadAttention,
    WordTimer,
    attention_words,
    ctc_words,
    forced_path,
    median_filter,
    monotonic_path,
)
from asr.checkpoint import ModelFolder
from asr.config import DecoderConfig, WhisperFeaturesConfig
from asr.data.batch import pad_audio
from asr.model.attention import explicit
from asr.model.masks import Memory
from asr.tokenizer import Tokenizer
from asr.transcript import Word
from asr.words import Span

# --- dynamic time warping -----------------------------------------------------------------------------


def plain_path(gain_RT: np.ndarray) -> list[int]:
    """Return the first frame of each row on the best path, by dynamic time warping cell by cell."""
    R, T = gain_RT.shape
    best: dict[tuple[int, int], tuple[float, tuple[int, int] | None]] = {}
    for r, t in itertools.product(range(R), range(T)):
        before = [(best[cell][0], cell) for cell in ((r - 1, t - 1), (r - 1, t), (r, t - 1)) if cell in best]
        total, cell = max(before) if before else (0.0, None)
        best[r, t] = total + gain_RT[r, t], cell
    starts, cell = [T - 1] * R, (R - 1, T - 1)
    while cell is not None:
        starts[cell[0]] = cell[1]
        cell = best[cell][1]
    return starts


def test_monotonic_path_matches_plain_dtw_despite_padding() -> None:
    draw = np.random.default_rng(1)
    sizes = [(1, 1), (1, 7), (5, 1), (3, 3), (9, 4), (4, 30), (12, 60), (2, 2), (30, 31)]
    gains = [draw.normal(size=size) for size in sizes]
    rows_B, frames_B = torch.tensor(sizes).T
    gain_BRT = torch.from_numpy(draw.normal(size=(len(sizes), int(rows_B.max()), int(frames_B.max()))))
    for row, gain in zip(gain_BRT, gains, strict=True):
        row[: gain.shape[0], : gain.shape[1]] = torch.from_numpy(gain)
    starts = monotonic_path(gain_BRT, rows_B, frames_B).tolist()
    for found, gain, (rows, _) in zip(starts, gains, sizes, strict=True):
        assert found[:rows] == plain_path(gain)
        assert found[rows:] == [0] * (len(found) - rows)


@pytest.mark.parametrize("starts", [[0], [0, 3], [0, 1, 2, 9], [0, 7, 8, 9], [0, 2, 5, 6]])
def test_an_unambiguous_path_is_found(starts: list[int]) -> None:
    gain_RT = torch.full((len(starts), 10), -1.0)
    for row_T, (start, end) in zip(gain_RT, zip(starts, [*starts[1:], 10], strict=True), strict=True):
        row_T[start:end] = 1.0
    found = monotonic_path(gain_RT[None], torch.tensor([len(starts)]), torch.tensor([10]))
    assert found.tolist() == [starts]


def test_tokens_share_frames_if_there_are_too_few() -> None:
    gain_RT = -(torch.arange(6)[:, None] // 2 - torch.arange(3)).abs().float()
    assert monotonic_path(gain_RT[None], torch.tensor([6]), torch.tensor([3])).tolist() == [[0, 0, 1, 1, 2, 2]]


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 11, 20])
def test_median_filter_reflects_each_sequence_at_its_own_end(frames: int) -> None:
    x_RT = torch.randn(2, 20, generator=torch.Generator().manual_seed(frames))
    found_RT = median_filter(x_RT[None], torch.tensor([frames]))[0, :, :frames]
    for row_T, found_T in zip(x_RT[:, :frames].numpy(), found_RT.numpy(), strict=True):
        if frames > 3:
            padded_T = np.pad(row_T, 3, mode="reflect")
            expected_T = [np.median(padded_T[t : t + 7]) for t in range(frames)]
            assert found_T.tolist() == pytest.approx(expected_T)
        assert set(found_T.tolist()) <= set(row_T.tolist())


# --- attention ----------------------------------------------------------------------------------------


def encoded(parts: ModelFolder, audio: Sequence[Tensor], texts: Sequence[str]) -> tuple[Memory, Tensor, Tensor, Tensor]:
    """Return the encoder output, the tokens, and their numbers per text without and with the last one."""
    tokens = [[*parts.tokenizer.prefix(), *parts.tokenizer.encode(text)] for text in texts]
    tokens_BL = torch.nn.utils.rnn.pad_sequence([torch.tensor(t) for t in tokens], batch_first=True)
    len_B = torch.tensor([len(t) - 1 for t in tokens])
    return parts.model.encode(*pad_audio(audio)), tokens_BL, len_B, torch.tensor([len(t) for t in tokens])


WHISPER_LIKE = {"features": WhisperFeaturesConfig(sample_rate_hz=16_000, n_mels=8, window_s=4.0)}
KEPT = {"padding": "recall", "keep_s": 0.1, "subsampling": {"factor": 2}}


@pytest.mark.parametrize("kind", ["masked", "remembered"])
@torch.inference_mode()
def test_head_attention_is_normalised_over_tokens_and_real_frames(kind: str) -> None:
    parts = small_model() if kind == "masked" else small_model(encoder=KEPT, **WHISPER_LIKE)
    memory, tokens_BL, len_B, fed_B = encoded(parts, noises(1.0, 0.4), ["hello", "he"])
    logits_BLV, (attention_BHLT,) = parts.model.decoder(tokens_BL, memory, explicit)
    gathered = HeadAttention({0: [1, 0]}, memory.len_B, 1, len_B)
    again_BLV, none = parts.model.decoder(tokens_BL, memory, gathered)
    assert none == []
    assert torch.allclose(logits_BLV, again_BLV, atol=1e-4)
    for b, frames in enumerate(memory.len_B.tolist()):
        assert frames < memory.states_BTD.shape[1] or b == 0
        weight_HLT = attention_BHLT[b, :, : fed_B[b], :frames]
        weight_HLT = weight_HLT / weight_HLT.sum(-1, keepdim=True)
        std_H1T, mean_H1T = torch.std_mean(weight_HLT, 1, keepdim=True, unbiased=False)
        contrast_LT = ((weight_HLT - mean_H1T) / std_H1T).mean(0)
        contrast_LT = median_filter(contrast_LT[None], torch.tensor([frames]))[0]
        rows = slice(0, int(fed_B[b]))
        assert torch.allclose(gathered.weight_BRT[b, rows, :frames], weight_HLT.mean(0), atol=1e-5)
        assert torch.allclose(gathered.contrast_BRT[b, rows, :frames], contrast_LT, atol=1e-2)


def test_trailing_punctuation_is_excluded_from_word_times() -> None:
    spans = [Span(" a.", slice(0, 1)), Span(" b", slice(2, 4))]
    weight_RT = torch.ones(5, 100)
    assert attention_words(spans, [0, 10, 40, 45, 60], weight_RT, long=50) == [(0, 10), (40, 60)]


def test_a_too_long_word_shrinks_to_its_attended_frames() -> None:
    weight_RT = torch.zeros(2, 100)
    weight_RT[0, 70:80] = 1.0
    (found,) = attention_words([Span(" a", slice(0, 1))], [0, 100], weight_RT, long=50)
    assert found == (71, 78)
    assert attention_words([Span(" a", slice(0, 1))], [0, 100], weight_RT, long=100) == [(0, 100)]
    assert attention_words([Span(" a", slice(0, 1))], [0, 100], 0 * weight_RT, long=50) == [(0, 100)]


# --- CTC ----------------------------------------------------------------------------------------------


def collapsed(labels: Sequence[int]) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(labels) if label)


def runs(labels: Sequence[int]) -> list[tuple[int, int]]:
    """Return the frames [start, end) of each token."""
    at, found = 0, []
    for label, same in itertools.groupby(labels):
        length = len(list(same))
        if label:
            found.append((at, at + length))
        at += length
    return found


@pytest.mark.parametrize("text", [(1,), (1, 2), (2, 2), (1, 2, 1), (1, 1, 1), (2, 1, 1, 2), (1, 2, 1, 2, 1, 2)])
def test_forced_alignment_is_the_most_probable_path(text: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(sum(text))
    log_prob_TV = torch.randn(6, 3, generator=draw).mul(2).log_softmax(-1)
    paths = [path for path in itertools.product(range(3), repeat=6) if collapsed(path) == text]
    best = max(paths, key=lambda path: sum(float(log_prob_TV[t, v]) for t, v in enumerate(path)))
    assert forced_path(log_prob_TV, text, 0) == runs(best)


@pytest.mark.parametrize("text", [(), (1, 1, 1, 1), (1, 2) * 4, (1, 0)])
def test_text_that_ctc_cannot_emit_has_no_path(text: tuple[int, ...]) -> None:
    assert forced_path(torch.zeros(6, 3).log_softmax(-1), text, 0) is None


def test_blanks_between_words_are_split_in_half() -> None:
    spans = [Span("a", slice(0, 1)), Span(" b", slice(2, 4)), Span(" c", slice(5, 6))]
    found = [(2, 3), (4, 5), (9, 10), (12, 13), (14, 15), (20, 22)]
    assert ctc_words(spans, found) == [(2, 6), (6, 16), (16, 22)]
    assert ctc_words([], []) == []


# --- words --------------------------------------------------------------------------------------------

TEXTS = ["hello", "he", "", "we holler red wool", "d", "oh well", "hello world " * 3]
LENGTHS_S = (1.0, 0.04, 0.5, 1.5, 0.001, 0.75, 1.1)


def timed(parts: ModelFolder, audio: Sequence[Tensor], texts: Sequence[str]) -> list[list[Word]]:
    timer = WordTimer(parts.model, parts.tokenizer, 0.02 if parts.config.features.kind == "whisper" else 0.04)
    audio_BN, len_B = pad_audio(audio)
    with torch.inference_mode():
        memory = parts.model.encode(audio_BN, len_B)
    prefix_BP = torch.tensor([parts.tokenizer.prefix()] * len(texts))
    return timer.words(memory, [parts.tokenizer.encode(text) for text in texts], prefix_BP, audio_BN, len_B)


MODELS = {
    "attention": lambda: small_model(ctc=False),
    "ctc": lambda: small_model(),
    "thinned": lambda: small_model(ctc=False, encoder=KEPT, **WHISPER_LIKE),
}


@pytest.mark.parametrize("kind", MODELS)
def test_word_times_do_not_depend_on_batching_and_padding(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, audio = MODELS[kind](), noises(*LENGTHS_S)
    alone = [timed(parts, [a], [text])[0] for a, text in zip(audio, TEXTS, strict=True)]
    assert len({word.start_s for words in alone for word in words}) > 6, "equal times would prove nothing"

    def check(found: list[list[Word]], expected: list[list[Word]]) -> None:
        for words, others in zip(found, expected, strict=True):
            assert [(w.text, w.start_s, w.end_s) for w in words] == [(w.text, w.start_s, w.end_s) for w in others]
            assert [w.probability for w in words] == pytest.approx([w.probability for w in others], rel=1e-3)

    check(timed(parts, audio, TEXTS), alone)
    order = [3, 0, 6, 1, 5, 2, 4]
    check(timed(parts, [audio[i] for i in order[:4]], [TEXTS[i] for i in order[:4]]), [alone[i] for i in order[:4]])
    monkeypatch.setattr(asr.model.reading, "MOST_WEIGHTS", 3 * 2 * 30 * 25)
    check(timed(parts, audio, TEXTS), alone)


@pytest.mark.parametrize("kind", MODELS)
def test_timed_words_match_the_text_and_lie_in_order_within_the_audio(kind: str) -> None:
    for length, text, words in zip(LENGTHS_S, TEXTS, timed(MODELS[kind](), noises(*LENGTHS_S), TEXTS), strict=True):
        assert "".join(word.text for word in words) == text.strip()
        assert [word.text.strip() for word in words] == text.split()
        times = [time for word in words for time in (word.start_s, word.end_s)]
        assert times == sorted(times)
        assert all(0 <= time <= length + 1e-6 for time in times)
        assert all(0 < word.probability <= 1 for word in words)


@torch.inference_mode()
def test_word_probability_is_the_geometric_mean_over_tokens() -> None:
    parts, audio = small_model(), noises(1.0)
    (words,) = timed(parts, audio, ["oh hello"])
    memory, tokens_BL, _, _ = encoded(parts, audio, ["oh hello"])
    log_prob_LV = parts.model.decoder(tokens_BL, memory)[0][0].log_softmax(-1)
    scores = [float(log_prob_LV[i, token]) for i, token in enumerate(tokens_BL[0, 1:].tolist())]
    expected = [math.exp(sum(part) / len(part)) for part in (scores[:2], scores[3:])]
    assert [word.probability for word in words] == pytest.approx(expected, rel=1e-4)


@torch.inference_mode()
def test_attention_word_times_match_plain_dtw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asr.align, "find_pauses", lambda audio_N, rate: [])
    monkeypatch.setattr(asr.align, "LONG_S", 1000.0)
    for seed in range(4):
        parts, audio, text = MODELS["attention"](), noises(2.0, seed=seed), "we do roll"
        memory, tokens_BL, _, _ = encoded(parts, audio, [text])
        _, ((attention_HLT,),) = parts.model.decoder(tokens_BL, memory, explicit)
        std_H1T, mean_H1T = torch.std_mean(attention_HLT, 1, keepdim=True, unbiased=False)
        contrast_1LT = ((attention_HLT - mean_H1T) / std_H1T).mean(0, keepdim=True)
        starts = plain_path(median_filter(contrast_1LT, memory.len_B)[0].numpy())
        expected = [(starts[a] * 0.04, starts[b] * 0.04) for a, b in ((0, 2), (3, 5), (6, 10))]
        (words,) = timed(parts, audio, [text])
        assert [(word.start_s, word.end_s) for word in words] == [pytest.approx(times) for times in expected]


def test_text_too_long_for_ctc_is_timed_by_attention() -> None:
    audio = noises(0.3)
    text = "hello " * 5
    assert timed(small_model(), audio, [text]) == timed(MODELS["attention"](), audio, [text])


class Marker(torch.nn.Module):
    """A CTC head that is sure of a token at each of the given frames, and of blank elsewhere."""

    def __init__(self, tokenizer: Tokenizer, text: str, frames: Sequence[int]) -> None:
        super().__init__()
        self.marks = dict(zip(frames, tokenizer.encode(text), strict=True))
        self.size = tokenizer.vocab_size

    def forward(self, memory: Memory) -> Tensor:
        log_prob_BTV = torch.full((*memory.states_BTD.shape[:2], self.size), -20.0)
        log_prob_BTV[..., 0] = 0.0
        for frame, token in self.marks.items():
            log_prob_BTV[:, frame, [0, token]] = torch.tensor([-20.0, 0.0])
        return log_prob_BTV


def test_words_do_not_extend_into_pauses_of_the_recording() -> None:
    parts = small_model()
    audio_N = noises(3.0)[0]
    audio_N[: RATE // 2] = audio_N[RATE : RATE * 2] = audio_N[-RATE // 4 :] = 0.0
    parts.model.ctc = Marker(parts.tokenizer, "he we", [20, 24, 40, 51, 60])  # type: ignore[assignment]
    (words,) = timed(parts, [audio_N], ["he we"])
    times = [(word.start_s, word.end_s) for word in words]
    assert times == [pytest.approx((0.45, 1.05), abs=0.03), pytest.approx((1.95, 2.8), abs=0.03)]


def test_ctc_places_no_word_in_the_padding() -> None:
    parts = small_model()
    parts.model.ctc = Marker(parts.tokenizer, "he we", [20, 24, 40, 51, 60])  # type: ignore[assignment]
    words, _ = timed(parts, noises(0.6, 3.0), ["he we", "he we"])
    assert [word.text for word in words] == ["he", " we"]
    assert all(word.start_s < word.end_s <= 0.6 for word in words)


@pytest.mark.parametrize("head", [(1, 0), (0, 2), (-1, 0)])
def test_nonexistent_alignment_head_is_an_error(head: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"alignment_heads: there is no head .* 1 layers of 2 heads"):
        DecoderConfig(layers=1, heads=2, alignment_heads=(head,))


def test_alignment_heads_default_to_the_upper_half_of_the_layers() -> None:
    parts = small_model()
    assert WordTimer(parts.model, parts.tokenizer, 0.04).heads == {0: [0, 1]}
    layers = parts.model.decoder.layers
    assert isinstance(layers, torch.nn.ModuleList)
    layers.extend([layers[0], layers[0]])
    assert WordTimer(parts.model, parts.tokenizer, 0.04).heads == {1: [0, 1], 2: [0, 1]}
    assert WordTimer(parts.model, parts.tokenizer, 0.04, [(0, 1)]).heads == {0: [1]}
