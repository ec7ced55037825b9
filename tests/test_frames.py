"""Word times from alignments of tokens to frames."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from asr.frames import CTCAligner, FrameTimer, TransducerAligner
from asr.model.masks import Memory
from asr.model.transducer import Joiner, LstmPredictor, Transducer
from asr.tokenizer import CharacterTokenizer

RATE, FRAME_S, BLANK = 8000, 0.04, 0


def memory(*frames: int) -> Memory:
    return Memory(torch.zeros(len(frames), max(frames), 4), torch.zeros(len(frames), max(frames)), torch.tensor(frames))


def test_ctc_alignment_gives_token_frames_and_log_probs() -> None:
    path = [0, 5, 5, 0, 6, 0]  # the most probable token of each frame, by far
    log_prob_1TV = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(0))
    log_prob_1TV[0, range(6), path] += 9.0
    log_prob_1TV = log_prob_1TV.log_softmax(-1)
    align = CTCAligner(lambda memory: (log_prob_1TV, torch.tensor([6])), BLANK)
    (found,) = align(memory(6), [(5, 6)], torch.zeros(1, 0))
    assert found is not None
    assert found.frames == [(1, 3), (4, 5)]
    expected = [(log_prob_1TV[0, 1, 5] + log_prob_1TV[0, 2, 5]) / 2, log_prob_1TV[0, 4, 6]]
    torch.testing.assert_close(torch.tensor(found.log_probs), torch.stack(expected))
    assert align(memory(6), [(5, 5, 5, 5)], torch.zeros(1, 0)) == [None]


def test_text_without_alignment_is_spread_evenly() -> None:
    tokenizer = CharacterTokenizer.train(["ab "])
    loud_BN: Tensor = torch.ones(2, 8000)
    timer = FrameTimer(lambda *_: [None, None], tokenizer, RATE, FRAME_S)
    texts = [tokenizer.encode("ab ba ab"), []]
    first, second = timer.words(memory(24, 3), texts, torch.zeros(2, 0), loud_BN, torch.tensor([7680, 960]))
    assert [word.text for word in first] == ["ab", " ba", " ab"]
    times = [t for word in first for t in (word.start_s, word.end_s)]
    assert times == pytest.approx([0.0, 0.28, 0.28, 0.64, 0.64, 0.96], abs=0.02)  # the sound begins a little later
    assert [word.probability for word in first] == [0.0] * 3
    assert second == []


def test_transducer_alignment_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    model = Transducer(LstmPredictor(8, 6, 1, 0.0), Joiner(4, 6, 5, 8)).eval()
    heard = Memory(torch.randn(1, 30, 4), torch.zeros(1, 30), torch.tensor([30]))
    align = TransducerAligner(model, BLANK)
    (whole,) = align(heard, [(5, 6, 6, 2)], torch.tensor([[1]]))
    monkeypatch.setattr("asr.frames.MOST_LOGITS", 7 * 5 * 8)  # seven frames at a time
    (parts,) = align(heard, [(5, 6, 6, 2)], torch.tensor([[1]]))
    assert whole is not None
    assert parts is not None
    assert parts.frames == whole.frames
    assert parts.log_probs == pytest.approx(whole.log_probs)
